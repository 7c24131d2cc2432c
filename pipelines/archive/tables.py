"""An archive: three Parquet tables that show each video whole or not at all.

OUTPUT/videos/PART.parquet    one row per video
OUTPUT/tracks/PART.parquet    one row per track
OUTPUT/masks/PART.parquet     one row per track and frame

OUTPUT/TABLE/_delta_log/      what other engines read: see `registration`
OUTPUT/removal                parts that were replaced, and when

OUTPUT is a local folder or a prefix in the cloud. A part is three files of one name with all rows of some videos. It
counts when all three exist until it is replaced, and never changes; its name begins with the number of the run. If
several parts have a video, the last one that labelled it counts, or else the last one that failed.
`compaction.settle` replaces parts with other rows.
"""

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32

from pipelines.archive.part_file import read_row_groups
from pipelines.archive.schemas import SCHEMAS, schema_of
from pipelines.storage.files import Storage, bad_input

REMOVAL = "removal"
"""Names the parts that no longer count, with the time in seconds; their files stay for readers that have begun."""

READERS = 16
"""Files that are read at a time: in the cloud each one costs time before its first byte."""

_NAME = re.compile(r"(\d{6,})-[0-9a-f]{8}-[0-9a-f]{12}")  # number and id of the run, id of the part

T = TypeVar("T")


class Results:
    """The tables of one archive, as they are at each call.

    Args:
        storage: the output folder.
        parts: names of the parts to read; those that count at each call if None.
    """

    def __init__(self, storage: Storage, parts: Sequence[str] | None = None) -> None:
        self.storage = storage
        self._parts = parts
        self._listed: dict[str, pa.Table] = {}  # id and status of each part's videos, which never change
        self._counting: tuple[list[str], dict[str, pa.Array]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the listings of parts: every task gets a copy."""
        return {"storage": self.storage, "parts": self._parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def read(self, table: str, *, video_id: str | None = None) -> pa.Table:
        """Reads all rows of a table that count, or those of one video.

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
        """Reads some columns of some videos; returns the result of `each` for the rows of every part that has any."""
        read = partial(self._rows, table, columns)
        only = None if video_ids is None else pa.array(video_ids, pa.string())

        def scan(parts: list[str]) -> list[Any]:
            wanted = self._counting_of(parts, only)
            with ThreadPoolExecutor(READERS) as pool:
                return list(pool.map(lambda part, ids: each(read(part, ids)), wanted, wanted.values()))

        return self._of_parts(scan)

    def scan_all(
        self,
        table: str,
        columns: Sequence[str],
        *,
        parts: Sequence[str] | None = None,
        each: Callable[[pa.Table], Any] = lambda rows: rows,
    ) -> Iterator[Any]:
        """Yields the result of `each` for all rows of every part, whether they count or not; holds a few parts.

        After `compaction.settle`, all rows count while the lease is held.

        Args:
            table: name of the table.
            columns: what is read of it.
            parts: only these, in this order.
            each: a function of the rows of a part.
        """
        parts, at_a_time = self.parts() if parts is None else parts, 4 * READERS

        def read(part: str) -> Any:
            return each(self._rows(table, columns, part))

        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, len(parts), at_a_time):
                yield from pool.map(read, parts[start : start + at_a_time])

    def parts(self) -> list[str]:
        """Returns the names of the whole parts, in the order in which the runs that wrote them began.

        Lists again if parts are replaced meanwhile: a listing may then show neither them nor what replaced them. Parts
        that are added do not count as that: a labelling run may add them faster than they are listed.
        """
        if self._parts is not None:
            return list(self._parts)
        while True:
            replaced = self.replaced()
            videos = set(self.names("videos"))  # first, because it is written last
            whole = videos.intersection(self.names("tracks"), self.names("masks")).difference(replaced)
            if self.replaced() == replaced:
                return sorted(whole, key=_order)

    def replaced(self) -> dict[str, float]:
        """Returns the parts that no longer count but may have files, and since when, in seconds since 1970."""
        content = self.storage.read_bytes(REMOVAL)
        try:
            return dict(json.loads(content or b"{}"))
        except (ValueError, TypeError):  # an id, as earlier versions wrote
            return {}

    def names(self, table: str) -> Iterator[str]:
        """Yields the part names of a table's files, also of parts that are not whole; skips files of others."""
        return (name for name, _ in self._files(table))

    def sizes(self, tables: Sequence[str] = tuple(SCHEMAS)) -> dict[str, int]:
        """Returns the bytes of each part in some tables, also of parts that are not whole."""
        sizes: dict[str, int] = {}
        for table in tables:
            for name, size in self._files(table):
                sizes[name] = sizes.get(name, 0) + size
        return sizes

    def _files(self, table: str) -> Iterator[tuple[str, int]]:
        for path, size in self.storage.sizes(table):
            name = path.removeprefix(f"{table}/").removesuffix(".parquet")
            if path.endswith(".parquet") and _NAME.fullmatch(name):
                yield name, size

    def next_run(self) -> str:
        """Returns a prefix for the names of a new run's parts that puts them after those of all earlier runs."""
        numbers = [_order(name)[0] for table in SCHEMAS for name in self.names(table)]
        return f"{max(numbers, default=0) + 1:06d}-{uuid.uuid4().hex[:8]}"

    def counting(self, video_ids: pa.Array | None = None) -> Mapping[str, pa.Array]:
        """Returns the ids of the videos that count in each part: in the last part that labelled them, or else the last.

        Args:
            video_ids: only these, and only parts that have any of them.
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
        """Returns `video_id` and `status` of all videos in some parts, also of those that do not count; cached."""
        listed = dict(self._listed)  # a copy: another thread may be listing, too
        new = [part for part in parts if part not in listed]
        with ThreadPoolExecutor(READERS) as pool:
            listed |= zip(new, pool.map(partial(self._rows, "videos", ("video_id", "status")), new), strict=True)
        self._listed = listed
        return [listed[part] for part in parts]

    def of_run(self, run: str) -> list[str]:
        """Returns the names of the parts that a run has put in place so far."""
        return [part for part in self.parts() if part.startswith(f"{run}-")]

    def row_groups(
        self, table: str, part: str, video_ids: pa.Array | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Yields a table's rows in one part, as `read_row_groups`."""
        return read_row_groups(self.storage, table, part, video_ids, columns)

    def _of_parts(self, read: Callable[[list[str]], T]) -> T:
        """Reads the current parts; reads again if a compaction replaced some."""
        while True:
            parts = self.parts()
            try:
                return read(parts)
            except FileNotFoundError:
                if set(parts) <= set(self.parts()):
                    raise

    def check_writable(self) -> None:
        """Writes and removes a small file in each table's folder.

        Raises:
            ValueError: names the folder and the system's reason.
        """
        for table in SCHEMAS:
            self.storage.check_writable(table)

    def of_other_models(self, fingerprint: str) -> pa.Array:
        """Returns the ids of labelled videos whose embeddings are in another model's space.

        Args:
            fingerprint: fingerprint of the model that is used now.

        Raises:
            ValueError: all labelled videos are of other models.
        """
        labelled, others = 0, list[pa.Array]()
        for videos in self.scan("videos", ("video_id", "status", "model_fingerprint")):
            ok = videos.filter(pc.equal(videos["status"], "ok"))
            labelled += ok.num_rows
            others += ok.filter(pc.not_equal(ok["model_fingerprint"], fingerprint))["video_id"].chunks
        video_ids = pa.chunked_array(others, pa.string()).combine_chunks()
        if labelled and len(video_ids) == labelled:
            raise ValueError(
                f"checkpoint: all {labelled} videos in {self.storage.root} were labelled with another model; "
                "give the checkpoint that they were labelled with"
            )
        return video_ids

    def _rows(self, table: str, columns: Sequence[str] | None, part: str, ids: pa.Array | None = None) -> pa.Table:
        return pa.concat_tables([schema_of(table, columns).empty_table(), *self.row_groups(table, part, ids, columns)])


def _order(part: str) -> tuple[int, str]:
    return int(part.partition("-")[0]), part


def _counting(listed: dict[str, pa.Table]) -> dict[str, pa.Array]:
    if not listed:
        return {}
    videos = pa.concat_tables(listed.values())
    ok = pc.cast(pc.fill_null(pc.equal(videos["status"], "ok"), False), pa.int64())
    rank = pc.add(pc.multiply(ok, videos.num_rows), pa.array(np.arange(videos.num_rows)))
    best = pa.table({"video_id": videos["video_id"], "rank": rank}).group_by("video_id", use_threads=False)
    places = np.sort(best.aggregate([("rank", "max")])["rank_max"].to_numpy() % max(videos.num_rows, 1))
    ends = np.cumsum([table.num_rows for table in listed.values()])
    counting = {}
    for part, end in zip(listed, ends.tolist(), strict=True):
        start = end - listed[part].num_rows
        rows = places[np.searchsorted(places, start) : np.searchsorted(places, end)] - start
        counting[part] = listed[part]["video_id"].take(pa.array(rows)).combine_chunks()
    return counting


def open_labels(labels: str) -> Results:
    """Opens an archive that has at least one part.

    Args:
        labels: output of a labelling run, local or in the cloud.

    Raises:
        ValueError: the archive has no parts, or cannot be listed.
    """
    results = Results(Storage(labels))
    with bad_input("labels"):
        if not results.parts():
            raise ValueError(f"labels: {labels} has no labels; give the output of a labelling run")
    return results


def read_videos(output: str, *, version: int | None = None) -> pa.Table:
    """Reads the `videos` table of an archive.

    Args:
        output: output of a labelling run, local or in the cloud.
        version: a version of the Delta Lake log, which has the same number in all tables; None for what counts now.

    Raises:
        ValueError: the folder is missing, one of its files is damaged, or there is no such version any more.
    """
    return _read(output, "videos", version)


def read_tracks(output: str, *, version: int | None = None) -> pa.Table:
    """Reads the `tracks` table of an archive, as `read_videos`."""
    return _read(output, "tracks", version)


def read_masks(output: str, *, version: int | None = None) -> pa.Table:
    """Reads the `masks` table of an archive, which may be large, as `read_videos`."""
    return _read(output, "masks", version)


def track_embeddings(tracks: pa.Table) -> Float32[np.ndarray, "n D"]:
    """Returns the embeddings of some tracks as one array."""
    flat = tracks["embedding"].combine_chunks().flatten().to_numpy()
    return np.array(flat, np.float32).reshape(tracks.num_rows, -1)


def _read(output: str, table: str, version: int | None) -> pa.Table:
    storage = Storage(output)
    if not storage.root_exists():
        raise ValueError(f"output: {output} does not exist; give the output of a labelling run")
    if version is None:
        return Results(storage).read(table)
    from pipelines.archive.registration import read_version  # needs what is above

    return read_version(storage, table, version)
