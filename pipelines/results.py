"""The output: three Parquet tables, written so that a video is there as a whole or not at all.

OUTPUT/videos/VIDEO_ID.parquet    one row per video; a video counts once its row is here, which is written last
OUTPUT/tracks/VIDEO_ID.parquet    one row per track
OUTPUT/masks/VIDEO_ID.parquet     one row per track and frame

OUTPUT is a local folder or a prefix on S3. Part files of the three tables share a name. Those without their `videos`
part are leftovers of a crash; readers do not see them, and the next run removes them.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.storage import Storage

SCHEMAS: Mapping[str, pa.Schema] = {
    "videos": pa.schema(
        [
            ("video_id", pa.string()),
            ("uri", pa.string()),
            ("status", pa.string()),  # ok, failed
            ("error", pa.string()),  # why it failed, or what is doubtful about it; null if nothing is
            ("frames", pa.int32()),  # sampled and decoded
            ("expected_frames", pa.int32()),  # sampled, of those in the file
            ("fps", pa.float64()),  # of the file
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("duration_s", pa.float64()),
            ("tracks", pa.int32()),
            ("model_fingerprint", pa.string()),
            ("vocabulary_fingerprint", pa.string()),
            ("config_fingerprint", pa.string()),
            ("model_s", pa.float64()),  # in the model
            ("tracker_s", pa.float64()),  # in the tracker and in writing
        ]
    ),
    "tracks": pa.schema(
        [
            ("video_id", pa.string()),
            ("track_id", pa.int32()),
            ("category", pa.string()),
            ("score", pa.float32()),
            ("top", pa.list_(pa.struct([("category", pa.string()), ("score", pa.float32())]))),
            ("first_frame", pa.int32()),
            ("last_frame", pa.int32()),
            ("frames", pa.int32()),  # in which it was seen
            ("embedding", pa.list_(pa.float32())),
        ]
    ),
    "masks": pa.schema(
        [
            ("video_id", pa.string()),
            ("track_id", pa.int32()),
            ("frame", pa.int32()),  # index in the file
            ("time_s", pa.float64()),
            ("x", pa.int32()),
            ("y", pa.int32()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("area", pa.int32()),
            ("score", pa.float32()),  # objectness
            ("rle", pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])),  # as pycocotools takes it
        ]
    ),
}


ROW_GROUP = 8192
"""Rows of a row group, and thus those of a video that are held in memory."""

_READERS = 16  # files at a time


@dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """Under which model, vocabulary and settings a video was labelled; columns of the `videos` table."""

    model_fingerprint: str
    vocabulary_fingerprint: str
    config_fingerprint: str


class Part:
    """The part of one video while it is filled; rows go to temporary files, so memory stays flat.

    Args:
        storage: where the output is.
        name: of the part's files, the video's id.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self.storage = storage
        self.name = name
        self._folder = tempfile.TemporaryDirectory(prefix="openvis-part-")
        self._held = {table: schema.empty_table() for table, schema in SCHEMAS.items()}
        self._writers = {
            table: pq.ParquetWriter(self.folder / table, schema, compression="zstd")
            for table, schema in SCHEMAS.items()
        }

    @property
    def folder(self) -> Path:
        """A local folder that goes with the part."""
        return Path(self._folder.name)

    def add(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds rows to a table."""
        if not rows:
            return
        self._held[table] = pa.concat_tables([self._held[table], pa.Table.from_pylist(list(rows), SCHEMAS[table])])
        if self._held[table].num_rows >= ROW_GROUP:
            self._flush(table)

    def commit(self) -> None:
        """Puts the files in their place, the `videos` table, which makes them count, last.

        An older part of this name stops to count before the first of its files is replaced.
        """
        for table in SCHEMAS:
            self._flush(table)
            self._writers[table].close()
        self.storage.remove(f"videos/{self.name}.parquet")
        for table in ("masks", "tracks", "videos"):
            self.storage.put(self.folder / table, f"{table}/{self.name}.parquet")
        self._folder.cleanup()

    def discard(self) -> None:
        """Drops what was added."""
        for writer in self._writers.values():
            writer.close()
        self._folder.cleanup()

    def _flush(self, table: str) -> None:
        if self._held[table].num_rows:
            self._writers[table].write_table(self._held[table].combine_chunks())
            self._held[table] = SCHEMAS[table].empty_table()


class Results:
    """The tables below one output folder.

    Args:
        storage: where the folder is.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def part(self, name: str) -> "Part":
        """A new part, to be filled and committed."""
        return Part(self.storage, name)

    def read(self, table: str, *, video_id: str | None = None) -> pa.Table:
        """All committed rows of a table, or those of one video.

        Raises:
            ValueError: for a table that does not exist.
        """
        if table not in SCHEMAS:
            raise ValueError(f"table: unknown name {table!r}; choose from {tuple(SCHEMAS)}")
        names = self.committed_parts() if video_id is None else [video_id] if self._is_committed(video_id) else []
        with ThreadPoolExecutor(_READERS) as pool:  # S3 takes its time for each
            parts = list(pool.map(partial(self._part, table), names))
        return pa.concat_tables(parts) if parts else SCHEMAS[table].empty_table()

    def check_writable(self) -> None:
        """Writes and removes a small file beside each table's.

        Raises:
            ValueError: names the folder and what the system says.
        """
        for table in SCHEMAS:
            self.storage.check_writable(table)

    def video(self, name: str) -> dict[str, Any] | None:
        """The row of a video, if it is committed."""
        if not self._is_committed(name):
            return None
        rows: list[dict[str, Any]] = self._part("videos", name).to_pylist()
        return rows[0]

    def committed_parts(self) -> list[str]:
        """Names of the parts that count."""
        return sorted(self._names("videos"))

    def _is_committed(self, name: str) -> bool:
        return self.storage.exists(f"videos/{name}.parquet")

    def remove_leftovers(self) -> list[str]:
        """Removes parts that no `videos` part makes count; returns their paths."""
        committed = set(self.committed_parts())
        leftovers = [
            f"{table}/{name}.parquet"
            for table in ("tracks", "masks")
            for name in self._names(table)
            if name not in committed
        ]
        for path in leftovers:
            self.storage.remove(path)
        return leftovers

    def _names(self, table: str) -> Iterator[str]:
        for path in self.storage.list(table):
            if path.endswith(".parquet"):
                yield path.removeprefix(f"{table}/").removesuffix(".parquet")

    def _part(self, table: str, name: str) -> pa.Table:
        with self.storage.read(f"{table}/{name}.parquet") as file:
            # Threads of pyarrow's scanner can abort the process at its end where torch is loaded too.
            try:
                return pq.ParquetFile(file).read(use_threads=False).cast(SCHEMAS[table])
            except pa.ArrowException as error:
                raise ValueError(f"{self.storage.root}/{table}/{name}.parquet: damaged ({error}); remove it") from error


def read_videos(output: str) -> pa.Table:
    """The `videos` table of an output folder.

    Raises:
        ValueError: the folder is not there, or a file of it is damaged.
    """
    return _read(output, "videos")


def read_tracks(output: str) -> pa.Table:
    """The `tracks` table of an output folder; raises as `read_videos`."""
    return _read(output, "tracks")


def read_masks(output: str) -> pa.Table:
    """The `masks` table of an output folder, large for an archive; raises as `read_videos`."""
    return _read(output, "masks")


def _read(output: str, table: str) -> pa.Table:
    results = Results(Storage(output))
    if not results.storage.is_there():
        raise ValueError(f"output: {output} is not there; give the output of a labelling run")
    return results.read(table)
