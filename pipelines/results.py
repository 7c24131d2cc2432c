"""The output: three Parquet tables, written so that a video is there as a whole or not at all.

OUTPUT/videos/PART.parquet    one row per video
OUTPUT/tracks/PART.parquet    one row per track
OUTPUT/masks/PART.parquet     one row per track and frame

OUTPUT is a local folder or a prefix on S3. A part is three files of one name with all rows of some videos. It counts
when all three are there, and never changes; names follow one another in time. Of a video that is in several parts, the
last part that has it labelled counts, or the last one that says that it failed. `compaction.settle` removes the others.
"""

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
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


_READERS = 16  # files at a time

PART_COLUMN = "part"
"""Of the `videos` table while it is worked with: which part its rows are in."""

_RUN = re.compile(r"(\d+)-")


@dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """Under which model, vocabulary and settings a video was labelled; columns of the `videos` table."""

    model_fingerprint: str
    vocabulary_fingerprint: str
    config_fingerprint: str


class Results:
    """The tables below one output folder, as they are at each call.

    Args:
        storage: where the folder is.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._videos: dict[str, pa.Table] = {}  # of each part: they never change
        self._known: tuple[list[str], pa.Table] | None = None

    def read(self, table: str, *, video_id: str | None = None) -> pa.Table:
        """All rows of a table that count, or those of one video.

        Raises:
            ValueError: for a table that does not exist, or a file that is damaged.
        """
        if table not in SCHEMAS:
            raise ValueError(f"table: unknown name {table!r}; choose from {tuple(SCHEMAS)}")
        while True:
            try:
                return self._read(table, video_id)
            except FileNotFoundError as error:
                # Merged into another part since it was listed? What is still listed is really not there.
                if any(str(error.filename).endswith(f"/{part}.parquet") for part in self.parts()):
                    raise

    def parts(self) -> list[str]:
        """Names of the parts that are whole, in the order in which they were written."""
        return sorted(set.intersection(*(set(self.names(table)) for table in SCHEMAS)))

    def names(self, table: str) -> Iterator[str]:
        """Names of the files of a table, those of parts that are not whole among them."""
        for path in self.storage.list(table):
            if path.endswith(".parquet"):
                yield path.removeprefix(f"{table}/").removesuffix(".parquet")

    def next_run(self) -> str:
        """What the names of a run's parts begin with, so that they come after those of all runs before."""
        numbers = [int(found[1]) for table in SCHEMAS for name in self.names(table) if (found := _RUN.match(name))]
        return f"{max(numbers, default=0) + 1:06d}-{uuid.uuid4().hex[:8]}"

    def counting(self) -> pa.Table:
        """The `videos` table, and in a column `part` which part the rows of each video that count are in."""
        parts = self.parts()
        if self._known is None or self._known[0] != parts:
            self._videos = {part: self._videos[part] for part in parts if part in self._videos}
            self._known = parts, _counting(self.listed(parts))
        return self._known[1]

    def of_run(self, run: str) -> pa.Table:
        """What a run has committed so far of the `videos` table."""
        return self.listed([part for part in self.parts() if part.startswith(f"{run}-")])

    def listed(self, parts: Sequence[str]) -> pa.Table:
        """All rows of the `videos` table in some parts, in their order, and in a column `part` in which."""
        new = [part for part in parts if part not in self._videos]
        with ThreadPoolExecutor(_READERS) as pool:  # S3 takes its time for each
            self._videos |= zip(new, pool.map(partial(self._rows, "videos"), new), strict=True)
        tables = [
            self._videos[part].append_column(PART_COLUMN, pa.repeat(part, self._videos[part].num_rows))
            for part in parts
        ]
        schema = SCHEMAS["videos"].append(pa.field(PART_COLUMN, pa.string()))
        return pa.concat_tables([schema.empty_table(), *tables])

    def row_groups(self, table: str, part: str, video_ids: pa.Array | None = None) -> Iterator[pa.Table]:
        """Yields a table's rows in one part, or those of some videos, a row group at a time.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it is damaged.
        """
        with self.storage.read(f"{table}/{part}.parquet") as file:
            try:
                found = pq.ParquetFile(file)
                for group in range(found.num_row_groups):
                    if video_ids is None or _may_have(found.metadata.row_group(group), video_ids):
                        # Threads of pyarrow's scanner can abort the process at its end where torch is loaded too.
                        rows = found.read_row_group(group, use_threads=False).cast(SCHEMAS[table])
                        yield rows if video_ids is None else rows.filter(pc.is_in(rows["video_id"], video_ids))
            except pa.ArrowException as error:
                raise ValueError(f"{self.storage.root}/{table}/{part}.parquet: damaged ({error}); remove it") from error

    def check_writable(self) -> None:
        """Writes and removes a small file beside each table's.

        Raises:
            ValueError: names the folder and what the system says.
        """
        for table in SCHEMAS:
            self.storage.check_writable(table)

    def _read(self, table: str, video_id: str | None) -> pa.Table:
        videos = self.counting()
        if video_id is not None:
            videos = videos.filter(pc.equal(videos["video_id"], video_id))
        if table == "videos":
            return videos.drop_columns([PART_COLUMN])
        ids = {
            part: videos.filter(pc.equal(videos[PART_COLUMN], part))["video_id"].combine_chunks()
            for part in videos[PART_COLUMN].unique().to_pylist()
        }
        with ThreadPoolExecutor(_READERS) as pool:
            tables = list(pool.map(partial(self._rows, table), ids, ids.values()))
        return pa.concat_tables([SCHEMAS[table].empty_table(), *tables])

    def _rows(self, table: str, part: str, video_ids: pa.Array | None = None) -> pa.Table:
        return pa.concat_tables([SCHEMAS[table].empty_table(), *self.row_groups(table, part, video_ids)])


def _counting(videos: pa.Table) -> pa.Table:
    """Of the rows of each video the last that is labelled, or else the last."""
    ok = pc.cast(pc.fill_null(pc.equal(videos["status"], "ok"), False), pa.int64())
    place = pa.array(range(videos.num_rows), pa.int64())
    rank = pc.add(pc.multiply(ok, videos.num_rows), place)
    best = pa.table({"video_id": videos["video_id"], "rank": rank}).group_by("video_id", use_threads=False)
    kept = best.aggregate([("rank", "max")])["rank_max"].to_numpy() % max(videos.num_rows, 1)
    return videos.take(pa.array(sorted(kept), pa.int64()))


def _may_have(group: pq.RowGroupMetaData, video_ids: pa.Array) -> bool:
    """Whether a row group can have rows of some videos, by what its statistics say."""
    statistics = group.column(0).statistics  # video_id is the first column of every table
    if statistics is None or not statistics.has_min_max:
        return True
    within = pc.and_(pc.greater_equal(video_ids, statistics.min), pc.less_equal(video_ids, statistics.max))
    return bool(pc.any(within).as_py())


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
