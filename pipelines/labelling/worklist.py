"""The videos that a labelling run has to label: those of the input that the output lacks.

Lists are kept on disk, and compared in buckets by video id; a byte per video of the input stays in memory.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from functools import partial
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.archive.buckets import BUCKETS, Buckets
from pipelines.archive.schemas import Fingerprints
from pipelines.archive.tables import Results
from pipelines.video.sources import Video

BATCH = 2**13
"""Videos that are written to the file together."""

_SCHEMA = pa.schema([(field.name, pa.string()) for field in fields(Video)])
_KNOWN = pa.schema([("video_id", pa.string()), ("uri_hash", pa.int64()), ("done", pa.bool_())])
_WANTED = pa.schema([("video_id", pa.string()), ("uri_hash", pa.int64()), ("row", pa.int64())])


class Worklist:
    """A list of videos in a temporary file.

    Args:
        videos: read once, to the end.
    """

    def __init__(self, videos: Iterable[Video]) -> None:
        self._file = tempfile.TemporaryFile(prefix="openvis-worklist-")  # noqa: SIM115 - open as long as the list exists
        self._length = 0
        remaining = iter(videos)
        with pa.ipc.new_stream(self._file, _SCHEMA) as stream:
            while rows := [asdict(video) for video in islice(remaining, BATCH)]:
                stream.write_batch(pa.RecordBatch.from_pylist(rows, _SCHEMA))
                self._length += len(rows)

    def __len__(self) -> int:
        return self._length

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yields all videos as record batches with the columns of `Video`. Only one iteration may be active."""
        self._file.seek(0)
        with pa.ipc.open_stream(self._file) as stream:
            yield from stream

    def chunks(self, size: int) -> Iterator[list[Video]]:
        """Yields lists of `size` videos, the last one shorter. Only one iteration may be active."""
        videos = self.videos()
        while chunk := list(islice(videos, size)):
            yield chunk

    def videos(self) -> Iterator[Video]:
        """Yields all videos. Only one iteration may be active."""
        return (Video(**row) for batch in self.batches() for rows in _slices(batch) for row in rows.to_pylist())


def undone(
    listed: Worklist, results: Results, fingerprints: Fingerprints, *, retry_failed: bool, overwrite: bool
) -> Iterator[Video]:
    """Yields the videos that an output lacks, in the order of the list.

    Args:
        listed: all videos of the input.
        results: the output, settled, so that all of its rows count.
        fingerprints: of this run.
        retry_failed: whether to yield videos that failed before.
        overwrite: whether to yield videos that the output has under other fingerprints, or whose id named another file.

    Raises:
        ValueError: the output has such videos, and `overwrite` is false.
    """
    columns, differing = ("video_id", "uri", "status", *vars(fingerprints)), dict[str, None]()
    is_done = partial(_is_done, fingerprints=fingerprints, retry_failed=retry_failed)

    def known() -> Iterator[pa.Table]:
        for rows, names in results.scan_all("videos", columns, each=is_done):
            differing.update(dict.fromkeys(names))
            yield rows

    in_output = Buckets(known(), _KNOWN)
    if differing and not overwrite:
        raise _conflict(results, f"videos labelled with another {' and '.join(differing)}")
    in_input = Buckets(_numbered(listed), _WANTED)
    wanted, renamed = np.ones(len(listed), bool), list[int]()
    for bucket in range(BUCKETS):
        there, here = in_output.read(bucket).combine_chunks(), in_input.read(bucket).combine_chunks()
        index = pc.index_in(here["video_id"], there["video_id"].combine_chunks())
        moved = pc.fill_null(pc.not_equal(there["uri_hash"].take(index), here["uri_hash"]), False)
        done = pc.and_not(pc.fill_null(there["done"].take(index), False), moved)
        wanted[here["row"].filter(done).to_numpy()] = False
        renamed += here["row"].filter(moved).to_pylist()[:1]
    if renamed and not overwrite:
        raise _moved(results, next(video for row, video in enumerate(listed.videos()) if row == min(renamed)))
    start = 0
    for batch in listed.batches():
        rest = batch.filter(pa.array(wanted[start : start + batch.num_rows]))
        yield from (Video(**row) for row in rest.to_pylist())
        start += batch.num_rows


def _numbered(listed: Worklist) -> Iterator[pa.Table]:
    """Yields rows of `_WANTED`."""
    start = 0
    for batch in listed.batches():
        rows = np.arange(start, start + batch.num_rows)
        yield pa.table([batch["video_id"], _hashes(batch["uri"]), rows], _WANTED)
        start += batch.num_rows


def _is_done(rows: pa.Table, fingerprints: Fingerprints, *, retry_failed: bool) -> tuple[pa.Table, list[str]]:
    """Returns rows of `_KNOWN` for videos of the output, and the names of fingerprints that differ from this run's."""
    same = {name: pc.equal(rows[name], value) for name, value in vars(fingerprints).items()}
    done = pc.is_in(rows["status"], pa.array(["ok"] if retry_failed else ["ok", "failed"]))
    for mask in same.values():
        done = pc.and_(done, mask)
    differing = [name.removesuffix("_fingerprint") for name, mask in same.items() if not pc.all(mask).as_py()]
    return pa.table([rows["video_id"], _hashes(rows["uri"]), done], _KNOWN), differing


def _hashes(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Returns eight bytes for each text; comparable within this process only."""
    return pa.array(map(hash, texts.to_pylist()), pa.int64())


def _moved(results: Results, video: Video) -> ValueError:
    old = results.read("videos", video_id=video.video_id)["uri"][0]
    return _conflict(results, f"{old} under the id {video.video_id!r}, which is now that of {video.uri}")


def _conflict(results: Results, content: str) -> ValueError:
    return ValueError(f"output: {results.storage.root} has {content}; choose another output, or --overwrite true")


def _slices(batch: pa.RecordBatch, rows: int = 1024) -> Iterator[pa.RecordBatch]:
    return (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))
