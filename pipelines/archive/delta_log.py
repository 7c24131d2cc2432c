"""The Delta Lake log of a table: the parts that other engines read. The only file that imports deltalake.

deltalake works on a copy of the log in a temporary folder; `Storage` carries the files. The log therefore has the same
credentials, retries, errors and atomic writes as the parts, on every kind of storage.
"""

import errno
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, PostCommitHookProperties, RemoveAction, create_table_with_add_actions

from pipelines.archive import reviews
from pipelines.archive.part_file import naming_damage
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import READERS
from pipelines.storage.files import Storage

FOLDER = "_delta_log"

CHECKPOINT_EVERY = 100
"""Versions between checkpoints, so that no reader fetches more commits than that."""

STATISTICS = ("video_id", "category", "score")
"""Columns whose least and greatest values the log has for each part, so that engines skip parts."""

_SCHEMAS = {**SCHEMAS, reviews.REVIEWS: reviews.SCHEMA}
_PROTOCOL = (1, 2)  # of readers and writers: all that immutable files need
_WRITER = "openvis"  # key of who commits
_FILE = re.compile(r"(\d{20})\.(json|checkpoint\..*parquet)")
_REPAIR = "start a new log with jobs.compact --repair true"


class OtherWriterError(Exception):
    """Another process committed the version that this one was about to commit."""


class TableLog:
    """The log of one table as of when it was read.

    Args:
        storage: the output.
        table: name of the table.
        version: the version to read; None for the newest.

    Attributes:
        version: the version that was read or last committed; -1 if the table has no log.
        ours: whether openvis committed that version.

    Raises:
        ValueError: the log is damaged, or is of a newer protocol than openvis writes, or has no such version.
        OSError: the storage cannot be read.
    """

    def __init__(self, storage: Storage, table: str, version: int | None = None) -> None:
        self._storage, self._table = storage, table
        self._temporary = tempfile.TemporaryDirectory(prefix="openvis-log-")
        self._copy = Path(self._temporary.name)
        self._path = f"{storage.root}/{table}/{FOLDER}"
        self._schema = Schema.from_arrow(_SCHEMAS[table])
        self._fetch(version)
        self._load()
        if version is not None and (version != self.version or version < 0):
            newest = f"; the newest is {self.version}" if self.version >= 0 else ""
            raise ValueError(f"version: {self._path} has no version {version}{newest}")

    def _fetch(self, version: int | None) -> None:
        """Copies the last checkpoint up to a version, and the commits after it."""
        names = [path.rpartition("/")[2] for path in self._storage.list(f"{self._table}/{FOLDER}")]
        numbers = {name: int(match[1]) for name in names if (match := _FILE.fullmatch(name))}
        numbers = {name: number for name, number in numbers.items() if version is None or number <= version}
        start = max((number for name, number in numbers.items() if ".checkpoint." in name), default=0)
        wanted = {name for name, number in numbers.items() if number >= start}
        if wanted:
            self._storage.download_folder(f"{self._table}/{FOLDER}", self._copy / FOLDER, wanted.__contains__)

    def _load(self) -> None:
        self._delta: DeltaTable | None = None
        self.version, self.ours, self._sizes = -1, True, dict[str, int]()
        if not (self._copy / FOLDER).exists():
            return
        try:
            self._delta = DeltaTable(self._copy)
            found = self._delta.protocol()
            files = pa.table(self._delta.get_add_actions(flatten=True))
            infos = self._delta.history(1)  # none if the version does not tell
        except DeltaError as error:
            raise ValueError(f"{self._path}: cannot be read ({_first_line(error)}); {_REPAIR}") from error
        reader, writer = found.min_reader_version, found.min_writer_version
        if reader > _PROTOCOL[0] or writer > _PROTOCOL[1]:
            text = f"protocol {reader}/{writer} is newer than {_PROTOCOL[0]}/{_PROTOCOL[1]}, which openvis writes"
            raise ValueError(f"{self._path}: another program changed it, {text}; {_REPAIR}")
        if self._delta.schema() != self._schema:
            raise ValueError(f"{self._path}: has other columns than this version of openvis writes; {_REPAIR}")
        self.version, self.ours = self._delta.version(), any(_WRITER in info for info in infos)
        self._sizes = dict(zip(files["path"].to_pylist(), files["size_bytes"].to_pylist(), strict=True))

    @property
    def parts(self) -> set[str]:
        """Names of the registered parts; a file that is no part has its own name."""
        return {path.removesuffix(".parquet") for path in self._sizes}

    def commit(self, parts: Collection[str], writer: str, *, data_change: bool) -> None:
        """Commits the next version, which lists exactly these parts. After an error, read the log again.

        Args:
            parts: names of parts whose files are in place.
            writer: who commits; recorded with the version.
            data_change: whether the rows change; false if the same rows are in other files.

        Raises:
            OtherWriterError: there is such a version already; nothing was committed.
            OSError: the storage cannot be written to; the version may or may not be committed.
            ValueError: a file is damaged.
        """
        wanted = {f"{part}.parquet" for part in parts}
        now = int(time.time() * 1000)
        with ThreadPoolExecutor(READERS) as pool:
            add = partial(self._added, now=now, data_change=data_change)
            added = list(pool.map(add, sorted(wanted - self._sizes.keys())))
        removed = [
            RemoveAction(path, data_change, now, self._sizes[path], {}) for path in sorted(self._sizes.keys() - wanted)
        ]
        properties = CommitProperties(
            custom_metadata={_WRITER: writer}, max_commit_retries=0, app_transactions=_transactions(parts, added)
        )
        self._write(added, removed, properties)
        commit = f"{FOLDER}/{self.version + 1:020}.json"
        if self._storage.replace_tagged(f"{self._table}/{commit}", (self._copy / commit).read_bytes(), None) is None:
            raise OtherWriterError
        self._load()
        if self.version % CHECKPOINT_EVERY == 0 and self.version:
            with suppress(OSError, DeltaError):  # readers then fetch more commits
                self._write_checkpoint()

    def _write(self, added: list[AddAction], removed: list[RemoveAction], properties: CommitProperties) -> None:
        """Writes the next version to the copy."""
        keywords: dict[str, Any] = {
            "commit_properties": properties,
            "post_commithook_properties": PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False),
        }
        try:
            if self._delta is None:
                create_table_with_add_actions(str(self._copy), self._schema, added, name=self._table, **keywords)
            else:
                self._delta.create_write_transaction([*added, *removed], "append", self._schema, **keywords)
        except DeltaError as error:
            text = f"its next version cannot be written to {self._copy} ({_first_line(error)})"
            raise OSError(errno.EIO, text, self._path) from error

    def _write_checkpoint(self) -> None:
        assert self._delta is not None
        self._delta.create_checkpoint()
        for name in (f"{self.version:020}.checkpoint.parquet", "_last_checkpoint"):
            self._storage.put(self._copy / FOLDER / name, f"{self._table}/{FOLDER}/{name}")

    def _added(self, path: str, *, now: int, data_change: bool) -> AddAction:
        with self._storage.read(f"{self._table}/{path}") as file:
            size = file.seek(0, 2)
            with naming_damage(f"{self._storage.root}/{self._table}/{path}"):
                metadata = pq.ParquetFile(file).metadata
        return AddAction(path, size, {}, now, data_change, json.dumps(_statistics(metadata)))


def _first_line(error: DeltaError) -> str:
    return str(error).partition("\n")[0]


def _transactions(parts: Collection[str], added: Collection[AddAction]) -> list[Transaction]:
    """Returns how many parts of each run are registered, for the runs of new parts."""
    counts = Counter(part.rpartition("-")[0] for part in parts)
    new = {action.path.rpartition("-")[0] for action in added}
    return [Transaction(run, counts[run]) for run in sorted(new)]


def _statistics(metadata: pq.FileMetaData) -> Mapping[str, Any]:
    """Returns a file's statistics as the log has them, from those of its row groups."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    found: dict[str, Any] = {"numRecords": metadata.num_rows, "minValues": {}, "maxValues": {}, "nullCount": {}}
    for index in range(metadata.num_columns):
        name = metadata.schema.column(index).path
        statistics = [group.column(index).statistics for group in groups]
        if name not in STATISTICS or not all(each and each.has_null_count for each in statistics):
            continue
        found["nullCount"][name] = sum(each.null_count for each in statistics)
        bounded = [each for each in statistics if each.has_min_max]
        if bounded and len(bounded) + sum(each.num_values == 0 for each in statistics) == len(statistics):
            found["minValues"][name] = min(each.min for each in bounded)
            found["maxValues"][name] = max(each.max for each in bounded)
    return found
