"""What a labelling run is to do: the videos that are found less those that are done.

On the disk but for what is looked up of the videos that the output has, some 20 bytes and an id each.
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
"""Videos that are held in memory, and looked up together."""

_SCHEMA = pa.schema([(field.name, pa.string()) for field in fields(Video)])
_KNOWN = pa.schema([("video_id", pa.string()), ("uri_hash", pa.int64()), ("done", pa.bool_())])


class Worklist:
    """Videos in a file on this machine's disk.

    Args:
        videos: read once, to the end.
    """

    def __init__(self, videos: Iterable[Video]) -> None:
        self._file = tempfile.TemporaryFile(prefix="openvis-worklist-")  # noqa: SIM115 - as long as the list
        self._length = 0
        rest = iter(videos)
        with pa.ipc.new_stream(self._file, _SCHEMA) as stream:
            while some := [asdict(video) for video in islice(rest, BATCH)]:
                stream.write_batch(pa.RecordBatch.from_pylist(some, _SCHEMA))
                self._length += len(some)

    def __len__(self) -> int:
        return self._length

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yields all of them, as columns of `Video`; one at a time may go through them."""
        self._file.seek(0)
        with pa.ipc.open_stream(self._file) as stream:
            yield from stream

    def chunks(self, size: int) -> Iterator[list[Video]]:
        """Yields all of them, so many at a time; one at a time may go through them."""
        videos = (Video(**row) for batch in self.batches() for part in _slices(batch) for row in part.to_pylist())
        while some := list(islice(videos, size)):
            yield some

    def close(self) -> None:
        """Removes the file."""
        self._file.close()


def undone(
    found: Worklist, results: Results, fingerprints: Fingerprints, *, retry_failed: bool, overwrite: bool
) -> Iterator[Video]:
    """Yields the videos that an output lacks.

    Args:
        found: all videos.
        results: the output.
        fingerprints: of this run.
        retry_failed: whether those that failed before are among them.
        overwrite: whether those are that are there under other fingerprints, or whose id stood for another file.

    Raises:
        ValueError: there are such videos, and they are not to be overwritten.
    """
    columns = ("video_id", "uri", "status", *vars(fingerprints))
    there = results.scan(
        "videos", columns, each=partial(_is_done, fingerprints=fingerprints, retry_failed=retry_failed)
    )
    differing = list(dict.fromkeys(name for _, names in there for name in names))
    if differing and not overwrite:
        raise _conflict(results, f"videos labelled with another {' and '.join(differing)}")
    known = pa.concat_tables([_KNOWN.empty_table(), *(table for table, _ in there)]).combine_chunks()
    ids, uri_hashes, done = (known[name].combine_chunks() for name in _KNOWN.names)
    for batch in found.batches():
        place = pc.index_in(batch["video_id"], ids)
        moved = pc.fill_null(pc.not_equal(uri_hashes.take(place), _hashes(batch["uri"])), False)
        if not overwrite and pc.any(moved).as_py():
            first = batch.filter(moved).to_pylist()[0]
            old = results.read("videos", video_id=first["video_id"])["uri"][0]
            raise _conflict(results, f"{old} under the id {first['video_id']!r}, which is now that of {first['uri']}")
        skipped = pc.and_(pc.fill_null(done.take(place), False), pc.invert(moved))
        yield from (Video(**row) for row in batch.filter(pc.invert(skipped)).to_pylist())


def _is_done(rows: pa.Table, fingerprints: Fingerprints, *, retry_failed: bool) -> tuple[pa.Table, list[str]]:
    """What is to be known of videos that the output has, and which of their fingerprints are not those of this run."""
    same = {name: pc.equal(rows[name], value) for name, value in vars(fingerprints).items()}
    done = pc.is_in(rows["status"], pa.array(["ok"] if retry_failed else ["ok", "failed"]))
    for mask in same.values():
        done = pc.and_(done, mask)
    differing = [name.removesuffix("_fingerprint") for name, mask in same.items() if not pc.all(mask).as_py()]
    return pa.table([rows["video_id"], _hashes(rows["uri"]), done], _KNOWN), differing


def _hashes(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Eight bytes instead of a hundred; of this process alone."""
    return pa.array(map(hash, texts.to_pylist()), pa.int64())


def _conflict(results: Results, what: str) -> ValueError:
    return ValueError(f"output: {results.storage.root} has {what}; choose another output, or --overwrite true")


def _slices(batch: pa.RecordBatch, rows: int = 1024) -> Iterator[pa.RecordBatch]:
    return (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))
