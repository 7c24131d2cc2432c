"""The output: three Parquet tables, written so that a video is there as a whole or not at all.

OUTPUT/videos/PART.parquet    one row per video
OUTPUT/tracks/PART.parquet    one row per track
OUTPUT/masks/PART.parquet     one row per track and frame

OUTPUT is a local folder or a prefix on S3. A part is three files of one name with all rows of some videos. It counts
when all three are there, and never changes; its name begins with the number of the run. Of a video that is in several
parts, the last part that has it labelled counts, or the last one that says that it failed. `compaction.settle` removes
the rest.
"""

import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float32

from pipelines.storage.files import Storage

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
            ("top", pa.int32()),  # categories listed for a track at most
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
            ("objectness", pa.float32()),
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

_NAME = re.compile(r"(\d{6,})-[0-9a-f]{8}-[0-9a-f]{12}")  # number and id of the run, id of the part

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """Under which model, vocabulary and settings a video was labelled; columns of the `videos` table.

    `top`, the number of categories listed for a track, stands by itself: it can be changed without the video.
    """

    model_fingerprint: str
    vocabulary_fingerprint: str
    config_fingerprint: str
    top: int


class Results:
    """The tables below one output folder, as they are at each call.

    Args:
        storage: where the folder is.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._listed: dict[str, pa.Table] = {}  # id and status of the videos of each part: they never change
        self._counting: tuple[list[str], dict[str, pa.Array]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without what is known of the parts: every task gets one."""
        return {"storage": self.storage}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def read(self, table: str, *, video_id: str | None = None) -> pa.Table:
        """All rows of a table that count, or those of one video.

        Raises:
            ValueError: for a table that does not exist, or a file that is damaged.
        """
        if table not in SCHEMAS:
            raise ValueError(f"table: unknown name {table!r}; choose from {tuple(SCHEMAS)}")
        rows = self.scan(table, video_ids=None if video_id is None else [video_id])
        return pa.concat_tables([SCHEMAS[table].empty_table(), *rows])

    def scan(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        *,
        video_ids: Sequence[str] | None = None,
        each: Callable[[pa.Table], Any] = lambda rows: rows,
    ) -> list[Any]:
        """As `read`, but some columns only, of all videos or some, and what `each` makes of the rows of each part."""
        read = partial(self._rows, table, columns)
        only = None if video_ids is None else pa.array(video_ids, pa.string())

        def scan(parts: list[str]) -> list[Any]:
            wanted = self._counting_of(parts, only)
            with ThreadPoolExecutor(_READERS) as pool:  # S3 takes its time for each
                return list(pool.map(lambda part, ids: each(read(part, ids)), wanted, wanted.values()))

        return self._of_parts(scan)

    def parts(self) -> list[str]:
        """Names of the parts that are whole, in the order in which the runs that wrote them began."""
        while True:
            before = set(self.names("videos"))
            whole = before.intersection(self.names("tracks"), self.names("masks"))
            if set(self.names("videos")) == before:  # nothing was merged meanwhile, which writes and removes
                return sorted(whole, key=_order)

    def names(self, table: str) -> Iterator[str]:
        """Names of a table's files that are ours, those of parts that are not whole among them."""
        for path in self.storage.list(table):
            name = path.removeprefix(f"{table}/").removesuffix(".parquet")
            if path.endswith(".parquet") and _NAME.fullmatch(name):
                yield name

    def next_run(self) -> str:
        """What the names of a run's parts begin with, so that they come after those of all runs before."""
        numbers = [_order(name)[0] for table in SCHEMAS for name in self.names(table)]
        return f"{max(numbers, default=0) + 1:06d}-{uuid.uuid4().hex[:8]}"

    def counting(self, video_ids: pa.Array | None = None) -> Mapping[str, pa.Array]:
        """Ids of the videos whose rows in a part count: of each video the last that is labelled, or else the last.

        Args:
            video_ids: only these, and parts that have any.
        """
        return self._of_parts(partial(self._counting_of, video_ids=video_ids))

    def _counting_of(self, parts: list[str], video_ids: pa.Array | None = None) -> Mapping[str, pa.Array]:
        if self._counting is None or self._counting[0] != parts:
            self._listed = {part: self._listed[part] for part in parts if part in self._listed}
            self._counting = parts, _counting(dict(zip(parts, self.listed(parts), strict=True)))
        if video_ids is None:
            return self._counting[1]
        some = {part: ids.filter(pc.is_in(ids, video_ids)) for part, ids in self._counting[1].items()}
        return {part: ids for part, ids in some.items() if len(ids)}

    def listed(self, parts: Sequence[str]) -> list[pa.Table]:
        """`video_id` and `status` of the videos of some parts, whether they count or not; kept in memory."""
        new = [part for part in parts if part not in self._listed]
        with ThreadPoolExecutor(_READERS) as pool:
            self._listed |= zip(new, pool.map(partial(self._rows, "videos", ("video_id", "status")), new), strict=True)
        return [self._listed[part] for part in parts]

    def of_run(self, run: str) -> list[str]:
        """Names of the parts that a run has put in place so far."""
        return [part for part in self.parts() if part.startswith(f"{run}-")]

    def row_groups(
        self, table: str, part: str, video_ids: pa.Array | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Yields a table's rows in one part, or those of some videos, a row group at a time.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it is damaged.
        """
        if video_ids is not None and not len(video_ids):
            return
        schema, path = _schema(table, columns), f"{self.storage.root}/{table}/{part}.parquet"
        with self.storage.read(f"{table}/{part}.parquet") as file:
            try:
                found = pq.ParquetFile(file)
                if missing := set(schema.names).difference(found.schema_arrow.names):
                    raise ValueError(f"{path}: has no column {missing.pop()}, written by another version; label anew")
                for group in range(found.num_row_groups):
                    if video_ids is None or _may_have(found.metadata.row_group(group), video_ids):
                        # Threads of pyarrow's scanner can abort the process at its end where torch is loaded too.
                        rows = found.read_row_group(group, columns and ["video_id", *columns], use_threads=False)
                        if video_ids is not None:
                            rows = rows.filter(pc.is_in(rows["video_id"], video_ids))
                        yield rows.select(schema.names).cast(schema)
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.filename:  # of the storage
                    raise
                raise ValueError(f"{path}: damaged ({error}); remove it") from error

    def _of_parts(self, read: Callable[[list[str]], T]) -> T:
        """What is read of the parts that there are; if some are merged meanwhile, of those that there are then."""
        while True:
            parts = self.parts()
            try:
                return read(parts)
            except FileNotFoundError:
                if self.parts() == parts:
                    raise

    def check_writable(self) -> None:
        """Writes and removes a small file beside each table's.

        Raises:
            ValueError: names the folder and what the system says.
        """
        for table in SCHEMAS:
            self.storage.check_writable(table)

    def _rows(self, table: str, columns: Sequence[str] | None, part: str, ids: pa.Array | None = None) -> pa.Table:
        return pa.concat_tables([_schema(table, columns).empty_table(), *self.row_groups(table, part, ids, columns)])


def _order(part: str) -> tuple[int, str]:
    return int(part.partition("-")[0]), part


def _schema(table: str, columns: Sequence[str] | None) -> pa.Schema:
    return SCHEMAS[table] if columns is None else pa.schema([SCHEMAS[table].field(name) for name in columns])


def _counting(listed: dict[str, pa.Table]) -> dict[str, pa.Array]:
    if not listed:
        return {}
    videos = pa.concat_tables(listed.values())
    ok = pc.cast(pc.fill_null(pc.equal(videos["status"], "ok"), False), pa.int64())
    rank = pc.add(pc.multiply(ok, videos.num_rows), pa.array(np.arange(videos.num_rows)))
    best = pa.table({"video_id": videos["video_id"], "rank": rank}).group_by("video_id", use_threads=False)
    places = np.sort(best.aggregate([("rank", "max")])["rank_max"].to_numpy() % max(videos.num_rows, 1))
    ends = np.cumsum([table.num_rows for table in listed.values()])
    found = {}
    for part, end in zip(listed, ends.tolist(), strict=True):
        start = end - listed[part].num_rows
        here = places[np.searchsorted(places, start) : np.searchsorted(places, end)] - start
        found[part] = listed[part]["video_id"].take(pa.array(here)).combine_chunks()
    return found


def _may_have(group: pq.RowGroupMetaData, video_ids: pa.Array) -> bool:
    """Whether a row group can have rows of some videos, by what its statistics say."""
    statistics = group.column(0).statistics  # video_id is the first column of every table
    if statistics is None or not statistics.has_min_max:
        return True
    within = pc.and_(pc.greater_equal(video_ids, statistics.min), pc.less_equal(video_ids, statistics.max))
    return bool(pc.any(within).as_py())


def open_labels(labels: str, option: str = "labels") -> Results:
    """The output of a labelling run that has put something in place.

    Args:
        labels: where, local or s3://.
        option: that it was given as, for errors.

    Raises:
        ValueError: it is not there, has no parts, or cannot be asked for.
    """
    results = Results(Storage(labels))
    try:
        if not results.parts():
            raise ValueError(f"{option}: {labels} has no labels; give the output of a labelling run")
    except OSError as error:
        raise ValueError(f"{option}: {error.filename}: {error.strerror}") from error
    return results


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


def track_embeddings(tracks: pa.Table) -> Float32[np.ndarray, "n D"]:
    """The embeddings of some tracks, as one array."""
    flat = tracks["embedding"].combine_chunks().flatten().to_numpy()
    return np.array(flat, np.float32).reshape(tracks.num_rows, -1)


def _read(output: str, table: str) -> pa.Table:
    results = Results(Storage(output))
    if not results.storage.is_there():
        raise ValueError(f"output: {output} is not there; give the output of a labelling run")
    return results.read(table)


def of_other_models(results: Results, model_fingerprint: str) -> pa.Array:
    """Ids of videos that another model labelled: their embeddings are not in this one's space.

    Raises:
        ValueError: that is all of them.
    """
    ok, others = 0, []
    for videos in results.scan("videos", ("video_id", "status", "model_fingerprint")):
        labelled = videos.filter(pc.equal(videos["status"], "ok"))
        ok += labelled.num_rows
        others += labelled.filter(pc.not_equal(labelled["model_fingerprint"], model_fingerprint))["video_id"].chunks
    found = pa.chunked_array(others, pa.string()).combine_chunks()
    if ok and len(found) == ok:
        raise ValueError(
            f"checkpoint: all {ok} videos in {results.storage.root} were labelled with another model; "
            "give the checkpoint that they were labelled with"
        )
    return found
