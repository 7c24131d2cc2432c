"""Rows of a table on local disk until they become a part: they arrive in any order and leave sorted by video.

A batch on disk has rows of one video, so sorting moves whole batches and holds one row group in memory. Engines skip
row groups by their least and greatest `video_id`; unsorted, a group of short videos spans all of them.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROW_GROUP = 8192
"""Rows per row group, at least, but for the last one; no more rows than a group's and a batch's are held in memory."""


class Spool:
    """Rows of a table in a local file, written as they arrive.

    Args:
        file: the file, which is created; complete after `close`.
        schema: columns of the table; one is `video_id`.

    `add` and `close`:

    Raises:
        OSError: the disk cannot be written to; again at every later call.
    """

    def __init__(self, file: Path, schema: pa.Schema) -> None:
        self.file, self._schema = file, schema
        self._held: list[pa.Table] = []
        self._num_held = 0
        self._video_ids: list[str] = []  # of each batch
        # Most batches are small. For them, zstd would take four times as long, and threads longer than none.
        options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        self._writer = pa.ipc.new_file(pa.OSFile(str(file), "wb"), schema, options=options)
        self._complete = False
        self._error: OSError | None = None

    def add(self, rows: pa.Table) -> None:
        """Adds rows."""
        if not rows.num_rows:
            return
        self._held.append(rows)
        self._num_held += rows.num_rows
        if self._num_held >= ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Completes the file; no more rows can be added."""
        if not self._complete:
            self._flush()
            self._write(self._writer.close)
            self._complete = True

    def write_sorted(self, file: Path) -> None:
        """Writes a closed spool's rows to a Parquet file, by video id; rows of a video stay in order."""
        order = sorted(range(len(self._video_ids)), key=self._video_ids.__getitem__)
        by_video = pq.SortingColumn.from_ordering(self._schema, [("video_id", "ascending")])
        with (
            pa.memory_map(str(self.file)) as source,
            pq.ParquetWriter(file, self._schema, compression="zstd", sorting_columns=by_video) as writer,
        ):
            batches = pa.ipc.open_file(source)
            for group in _groups(batches.get_batch(index) for index in order):
                writer.write_table(pa.Table.from_batches(group).combine_chunks())

    def _flush(self) -> None:
        """Writes the held rows, a batch for each run of rows of one video."""
        if not self._held:
            return
        rows = pa.concat_tables(self._held).combine_chunks()
        self._held, self._num_held = [], 0
        runs = pc.run_end_encode(rows["video_id"].combine_chunks())
        start = 0
        for end, video_id in zip(runs.run_ends.to_pylist(), runs.values.to_pylist(), strict=True):
            for batch in rows.slice(start, end - start).to_batches():
                self._write(partial(self._writer.write_batch, batch))
                self._video_ids.append(video_id)
            start = end

    def _write(self, act: Callable[[], None]) -> None:
        """Writes to the file unless that has failed before: the file then lacks rows for good."""
        if self._error is not None:
            raise self._error
        try:
            act()
        except OSError as error:
            self._error = error
            raise


def read_spool(file: Path) -> Iterator[pa.Table]:
    """Yields the rows of a closed spool's file in the order in which they were added, some at a time."""
    with pa.memory_map(str(file)) as source:
        batches = pa.ipc.open_file(source)
        for index in range(batches.num_record_batches):
            yield pa.Table.from_batches([batches.get_batch(index)])


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Yields lists of consecutive batches that have enough rows for a row group."""
    group: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        group.append(batch)
        rows += batch.num_rows
        if rows >= ROW_GROUP:
            yield group
            group, rows = [], 0
    if group:
        yield group
