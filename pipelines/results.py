"""The output: three Parquet tables, written so that a video is there as a whole or not at all.

OUTPUT/videos/VIDEO_ID.parquet    one row per video; a video counts once its row is here, which is written last
OUTPUT/tracks/VIDEO_ID.parquet    one row per track
OUTPUT/masks/VIDEO_ID.parquet     one row per track and frame

Part files of the three tables share a name. Those without their `videos` part are leftovers of a crash; readers do not
see them, and the next run removes them.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
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


class Part:
    """The part of one video while it is filled; rows go to temporary files, so memory stays flat.

    Args:
        storage: where the output is.
        name: of the part's files, the video's id.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self.storage = storage
        self.name = name
        self.folder = tempfile.TemporaryDirectory(prefix="openvis-part-")
        self.writers = {
            table: pq.ParquetWriter(Path(self.folder.name) / table, schema, compression="zstd")
            for table, schema in SCHEMAS.items()
        }

    def add(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds rows to a table, as one row group."""
        if rows:
            self.writers[table].write_table(pa.Table.from_pylist(list(rows), schema=SCHEMAS[table]))

    def commit(self) -> None:
        """Puts the files in their place, the `videos` table, which makes them count, last."""
        for table in ("masks", "tracks", "videos"):
            self.writers[table].close()
            self.storage.put(Path(self.folder.name) / table, f"{table}/{self.name}.parquet")
        self.folder.cleanup()

    def discard(self) -> None:
        """Drops what was added."""
        for writer in self.writers.values():
            writer.close()
        self.folder.cleanup()


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
        names = [name for name in self.committed_parts() if video_id in (None, name)]
        parts = [self._part(table, name) for name in names]
        return pa.concat_tables(parts) if parts else SCHEMAS[table].empty_table()

    def committed_parts(self) -> list[str]:
        """Names of the parts that count."""
        return sorted(self._names("videos"))

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

    def remove(self, name: str) -> None:
        """Removes a part; its `videos` row first, so that it never counts without its tracks and masks."""
        for table in ("videos", "tracks", "masks"):
            self.storage.remove(f"{table}/{name}.parquet")

    def _names(self, table: str) -> Iterator[str]:
        for path in self.storage.list(table):
            if path.endswith(".parquet"):
                yield path.removeprefix(f"{table}/").removesuffix(".parquet")

    def _part(self, table: str, name: str) -> pa.Table:
        with self.storage.read(f"{table}/{name}.parquet") as file:
            # Threads of pyarrow's scanner can abort the process at its end where torch is loaded too.
            return pq.ParquetFile(file).read(use_threads=False).cast(SCHEMAS[table])
