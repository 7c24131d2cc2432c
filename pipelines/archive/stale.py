"""Finds the rows of an archive that do not count, in constant memory: ids are compared a bucket at a time, on disk."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from pipelines.archive.buckets import BUCKETS, Buckets
from pipelines.archive.tables import Results

_ROWS = pa.schema([("video_id", pa.string()), ("ok", pa.bool_()), ("part", pa.int32()), ("row", pa.int32())])

Stale = Mapping[str, Int64[np.ndarray, "R"]]
"""Numbers of the rows of `videos` that do not count, for each part that has any."""


def find_stale(results: Results, parts: Sequence[str]) -> Stale:
    """Finds the rows that do not count.

    Args:
        results: the archive.
        parts: all of its parts, in their order.
    """
    buckets = Buckets(_numbered(results, parts), _ROWS)
    stale = defaultdict[int, list[np.ndarray]](list)
    for bucket in range(BUCKETS):
        rows = buckets.read(bucket)
        losers = rows.take(pa.array(_losers(rows)))
        numbers, places = losers["part"].to_numpy(), losers["row"].to_numpy()
        for number in np.unique(numbers).tolist():
            stale[number].append(places[numbers == number])
    return {parts[number]: np.sort(np.concatenate(its)).astype(np.int64) for number, its in sorted(stale.items())}


def counting(videos: pa.Table, stale: Int64[np.ndarray, "R"] | None) -> pa.Table:
    """Returns the rows of a part's `videos` that count.

    Args:
        videos: all rows of the part, in order.
        stale: numbers of those that do not count, if there are any.
    """
    if stale is None:
        return videos
    counts = np.ones(videos.num_rows, bool)
    counts[stale] = False
    return videos.filter(pa.array(counts))


def _numbered(results: Results, parts: Sequence[str]) -> Iterator[pa.Table]:
    """Yields rows of `_ROWS`, part by part."""
    tables = results.scan_all("videos", ("video_id", "status"), parts=parts)
    for number, videos in enumerate(tables):
        ok = pc.fill_null(pc.equal(videos["status"], "ok"), False)
        part, row = np.full(videos.num_rows, number, np.int32), np.arange(videos.num_rows, dtype=np.int32)
        yield pa.table([videos["video_id"], ok, part, row], _ROWS)


def _losers(rows: pa.Table) -> Int64[np.ndarray, "R"]:
    """Returns the places of rows that do not count: all with an id but the last that is labelled, or else the last."""
    if not rows.num_rows:
        return np.empty(0, np.int64)
    ids = rows["video_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.lexsort((np.arange(len(ids)), rows["ok"].to_numpy(), ids))  # an id's winner comes last
    return np.compress(ids[order[1:]] == ids[order[:-1]], order[:-1])
