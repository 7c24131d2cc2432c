"""Registers parts with Delta Lake: what other engines see of an archive, and when.

Each table has a log, and version n of all three lists the same parts: a commit goes to masks, tracks and videos, in
this order, and what a crash leaves unfinished is finished before the next commit. No version has a video twice. A
commit is the next version or none: whoever else commits first makes this process read and decide again.
"""

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from pipelines.archive.delta_log import FOLDER, OtherWriterError, TableLog
from pipelines.archive.reviews import REVIEWS
from pipelines.archive.schemas import ORDER
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from pipelines.storage.lease import Lease

EVERY_S = 60.0
"""How long a new part waits to be registered during a run, seconds."""

_END_S = 10.0  # for a commit that is under way; one that comes later does no harm

_log = logging.getLogger(__name__)


class Registration:
    """Commits to the logs of an archive; keeps what it has read of them.

    Args:
        results: the archive.
        lease: the lease on its output.
        tables: those whose logs list the same parts, in the order in which they are committed.

    All methods:

    Raises:
        RuntimeError: the lease was lost.
        ValueError: a log cannot be read, or a file is damaged.
        OSError: the storage cannot be read or written.
    """

    def __init__(self, results: Results, lease: Lease, tables: Sequence[str] = ORDER) -> None:
        self._results, self._lease, self._tables = results, lease, tables
        self._logs: list[TableLog] | None = None
        self._newcomers = _Newcomers(results)

    def lists(self, parts: Collection[str]) -> bool:
        """Returns whether all logs list exactly these parts, as openvis committed them: no video is in two of them."""
        logs = [TableLog(self._results.storage, table) for table in self._tables]
        return all(log.ours and log.parts == set(parts) for log in logs)

    def replace(self, parts: Collection[str], dropped: Collection[str] = (), *, data_change: bool = True) -> None:
        """Registers exactly these parts; every video must be in one of them at most.

        Args:
            parts: names of the parts.
            dropped: those that they replace; any other file that a log no longer lists is told.
            data_change: whether rows change.
        """

        def choose(registered: set[str]) -> set[str]:
            if lost := sorted(registered.difference(parts, dropped)):
                text = "%s: the logs listed %d files that are not parts, such as %s; they list the parts again"
                _log.warning(text, self._results.storage.root, len(lost), lost[0])
            return set(parts)

        self._update(choose, data_change=data_change)

    def add(self) -> None:
        """Registers new parts, but for those with a video that another part has: `settle` puts these in order."""
        self._update(lambda registered: registered | self._newcomers.find(registered), data_change=True)

    def _update(self, choose: Callable[[set[str]], set[str]], *, data_change: bool) -> None:
        while True:
            logs, self._logs = self._logs or [TableLog(self._results.storage, table) for table in self._tables], None
            try:
                self._level(logs)
                parts = choose(set().union(*(log.parts for log in logs)))
                if any(log.parts != parts for log in logs):
                    for log in logs:
                        self._commit(log, parts, data_change=data_change)
            except OtherWriterError:
                continue
            self._logs = logs
            return

    def _level(self, logs: Collection[TableLog]) -> None:
        """Brings all logs to the version of the foremost, and to its parts unless another program committed them."""
        foremost = max(logs, key=lambda log: log.version)
        for log in logs:
            while log.version < foremost.version:
                self._commit(log, foremost.parts if foremost.ours else log.parts, data_change=True)

    def _commit(self, log: TableLog, parts: set[str], *, data_change: bool) -> None:
        self._lease.check()
        log.commit(parts, self._lease.id, data_change=data_change)


@contextmanager
def registering(results: Results, lease: Lease) -> Iterator[None]:
    """Registers the parts that are put in place while the block runs."""
    ended = threading.Event()

    def register() -> None:
        registration = Registration(results, lease)
        while not ended.wait(EVERY_S):
            try:
                registration.add()
            except (OSError, RuntimeError, ValueError) as error:  # the run meets it, too, if it lasts
                _log.warning("new parts are not registered yet: %s", error)

    thread = threading.Thread(target=register, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_END_S)


def forget(storage: Storage) -> None:
    """Removes the logs."""
    for table in (*ORDER, REVIEWS):
        storage.remove_folder(f"{table}/{FOLDER}")


def read_version(storage: Storage, table: str, version: int) -> pa.Table:
    """Reads all rows of a table in a version of the logs.

    Raises:
        ValueError: there is no such version, or its files were deleted.
    """
    parts = sorted(TableLog(storage, table, version).parts)
    try:
        return Results(storage, parts).read(table)
    except FileNotFoundError as error:
        raise ValueError(
            f"version: files of version {version} of {storage.root}/{table} were deleted; choose a later one"
        ) from error


class _Newcomers:
    """Finds parts that no other part shares a video with; keeps a hash of eight bytes for each video.

    Two ids with one hash only delay a part until `settle`, which compares the ids themselves.
    """

    def __init__(self, results: Results) -> None:
        self._results = results
        self._registered = np.empty(0, np.int64)  # sorted
        self._merged = set[str]()  # parts whose videos these are
        self._others: dict[str, np.ndarray] = {}

    def find(self, registered: set[str]) -> set[str]:
        """Returns the parts that are not registered and share no video with a registered part or with one another."""
        parts = self._results.parts()
        if registered.issuperset(parts):
            return set()
        unread = [part for part in parts if part not in self._merged and part not in self._others]
        hashes = self._results.scan_all("videos", ("video_id",), parts=unread, each=_hashes)
        self._others |= zip(unread, hashes, strict=True)
        self._merge(registered.intersection(self._others))
        values, counts = np.unique(np.concatenate([np.empty(0, np.int64), *self._others.values()]), return_counts=True)
        shared = values[(counts > 1) | _are_in(self._registered, values)]
        return {part for part, its in self._others.items() if not _are_in(shared, its).any()}

    def _merge(self, parts: set[str]) -> None:
        if parts:
            self._registered = np.concatenate([self._registered, *(self._others.pop(part) for part in parts)])
            self._registered.sort()
            self._merged |= parts


def _hashes(videos: pa.Table) -> Int64[np.ndarray, "V"]:
    return np.fromiter(map(hash, videos["video_id"].to_pylist()), np.int64, videos.num_rows)


def _are_in(ordered: Int64[np.ndarray, "N"], values: Int64[np.ndarray, "V"]) -> Bool[np.ndarray, "V"]:
    """Returns which values are in a sorted array."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    places = np.minimum(ordered.searchsorted(values), len(ordered) - 1)
    return np.asarray(ordered[places] == values)
