"""Writes the output: collects each video's rows in files of its own, then gathers them into parts of a target size."""

import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.archive.schemas import ORDER, SCHEMAS
from pipelines.archive.spool import Spool, read_spool
from pipelines.storage.files import Storage
from pipelines.storage.lease import check_holder
from pipelines.storage.outage import left_while_away


class Rows:
    """Rows of the three tables, written to local files as they arrive; memory stays constant.

    Attributes:
        folder: a local folder for these files, removed with them.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="openvis-rows-")
        self.folder = Path(self._folder.name)
        self._spools = {table: Spool(self.folder / table, schema) for table, schema in SCHEMAS.items()}
        self._sorted: dict[str, Path] = {}

    def file(self, table: str) -> Path:
        """Returns the path of a table's spool, which is complete after `close`."""
        return self._spools[table].file

    def add(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds rows to a table."""
        if rows:
            self.add_table(table, pa.Table.from_pylist(list(rows), SCHEMAS[table]))

    def add_table(self, table: str, rows: pa.Table) -> None:
        """Adds rows given as an Arrow table."""
        self._spools[table].add(rows)

    def add_file(self, table: str, file: Path) -> None:
        """Adds all rows of a closed spool, some at a time."""
        for rows in read_spool(file):
            self.add_table(table, rows)

    def bytes(self) -> int:
        """Returns the size on disk so far."""
        return sum(self.file(table).stat().st_size for table in SCHEMAS)

    def close(self) -> None:
        """Completes the spools; no more rows can be added."""
        for spool in self._spools.values():
            spool.close()

    def put(self, storage: Storage, name: str) -> None:
        """Writes the rows, by video id, as a part of an output; the part counts once its last file is written.

        Raises:
            OSError: the output cannot be written to; the part does not count, and `put` may be called again.
        """
        self.close()
        for table in ORDER:
            if table not in self._sorted:
                file = self.folder / f"{table}.parquet"
                self._spools[table].write_sorted(file)
                self._sorted[table] = file
            storage.put(self._sorted[table], f"{table}/{name}.parquet")
        self._folder.cleanup()

    def discard(self) -> None:
        """Drops everything."""
        self._folder.cleanup()


class PartWriter:
    """Gathers the rows of finished videos and commits them as parts. Can be pickled while it holds none.

    Failed videos get parts of their own, so that retrying them does not rewrite large parts.

    Args:
        storage: the output.
        run: prefix of the parts' names.
        part_bytes: size on disk, of all three tables, at which a part is committed.
        part_s: age at which a part is committed, seconds since its first video.
        holder: id of the run's lease, which must be valid when a part is put in place; None where none is held.
    """

    def __init__(self, storage: Storage, run: str, part_bytes: float, part_s: float, holder: str | None = None) -> None:
        self.storage = storage
        self.run = run
        self.part_bytes = part_bytes
        self.part_s = part_s
        self.holder = holder
        self._open: dict[str, Rows] = {}  # by status
        self._full: dict[str, Rows] = {}  # by name, being committed
        self._since = 0.0

    def add(self, video: Rows, status: str) -> None:
        """Takes over the rows of a finished video.

        Raises:
            OSError: this machine's disk cannot be written to; all uncommitted videos are dropped.
        """
        if not self._open:
            self._since = time.monotonic()
        try:
            video.close()
            rows = self._open.get(status) or self._open.setdefault(status, Rows())
            for table in ORDER:
                rows.add_file(table, video.file(table))
        except BaseException:  # half a video must never be committed
            for waiting in self._open.values():
                waiting.discard()
            self._open.clear()
            raise
        finally:
            video.discard()

    def commit_if_due(self) -> None:
        """Commits if the open parts are large or old enough; keeps them while the output is away, else as `commit`."""
        size = sum(rows.bytes() for rows in self._open.values())
        old = self._open and time.monotonic() - self._since >= self.part_s
        if self._full or size >= self.part_bytes or old:
            with left_while_away():
                self.commit()

    def commit(self) -> None:
        """Commits all finished videos; they count from now on.

        Raises:
            OSError: the output cannot be written to; parts that were not written are kept for the next call.
            RuntimeError: another run took over the output.
            ValueError: this machine does not see the output folder.
        """
        self._full |= {f"{self.run}-{uuid.uuid4().hex[:12]}": rows for rows in self._open.values()}
        self._open.clear()
        for name in list(self._full):
            if self.holder is not None:
                check_holder(self.storage, self.holder)
            self._full[name].put(self.storage, name)
            del self._full[name]

    def discard(self) -> None:
        """Drops everything that is not committed."""
        for rows in (*self._open.values(), *self._full.values()):
            rows.discard()
        self._open.clear()
        self._full.clear()
