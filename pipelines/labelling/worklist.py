"""The videos that a labelling run has to label: those of the input that the output lacks.

Lists are kept on disk; only an id and some 20 bytes per video of the output stay in memory.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from functools import partial
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.archive.tables import Fingerprints, Results
from pipelines.video.sources import Video

BATCH = 2**16
"""Videos that are held in memory and looked up together."""

_SCHEMA = pa.schema([(field.name, pa.string()) for field in fields(Video)])
_KNOWN = pa.schema([("video_id", pa.string()), ("uri_hash", pa.int64()), ("done", pa.bool_())])


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
        videos = (Video(**row) for batch in self.batches() for rows in _slices(batch) for row in rows.to_pylist())
        while chunk := list(islice(videos, size)):
            yield chunk


def undone(
    listed: Worklist, results: Results, fingerprints: Fingerprints, *, retry_failed: bool, overwrite: bool
) -> Iterator[Video]:
    """Yields the videos that an output lacks.

    Args:
        listed: all videos of the input.
        results: the output.
        fingerprints: of this run.
        retry_failed: whether to yield videos that failed before.
        overwrite: whether to yield videos that the output has under other fingerprints, or whose id named another file.

    Raises:
        ValueError: the output has such videos, and `overwrite` is false.
    """
    columns = ("video_id", "uri", "status", *vars(fingerprints))
    scanned = results.scan(
        "videos", columns, each=partial(_is_done, fingerprints=fingerprints, retry_failed=retry_failed)
    )
    differing = list(dict.fromkeys(name for _, names in scanned for name in names))
    if differing and not overwrite:
        raise _conflict(results, f"videos labelled with another {' and '.join(differing)}")
    known = pa.concat_tables([_KNOWN.empty_table(), *(table for table, _ in scanned)]).combine_chunks()
    ids, uri_hashes, done = (known[name].combine_chunks() for name in _KNOWN.names)
    for batch in listed.batches():
        index = pc.index_in(batch["video_id"], ids)
        moved = pc.fill_null(pc.not_equal(uri_hashes.take(index), _hashes(batch["uri"])), False)
        if not overwrite and pc.any(moved).as_py():
            first = batch.filter(moved).to_pylist()[0]
            old = results.read("videos", video_id=first["video_id"])["uri"][0]
            raise _conflict(results, f"{old} under the id {first['video_id']!r}, which is now that of {first['uri']}")
        skipped = pc.and_(pc.fill_null(done.take(index), False), pc.invert(moved))
        yield from (Video(**row) for row in batch.filter(pc.invert(skipped)).to_pylist())


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


def _conflict(results: Results, content: str) -> ValueError:
    return ValueError(f"output: {results.storage.root} has {content}; choose another output, or --overwrite true")


def _slices(batch: pa.RecordBatch, rows: int = 1024) -> Iterator[pa.RecordBatch]:
    return (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))
