"""Rows on local disk in buckets by video id, so that large tables are compared a bucket at a time."""

import tempfile
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

BUCKETS = 64
"""All rows with one id are in one bucket; a bucket is what is held in memory."""

BATCH = 2**16
"""Rows that are divided among the buckets together."""


class Buckets:
    """Rows of a table in a temporary file, divided by their ids.

    Buckets of two tables with one number have the same ids, in this process.

    Args:
        tables: the rows; read once, to the end.
        schema: their columns; one is `video_id`.
    """

    def __init__(self, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
        self._schema = schema
        self._file = tempfile.TemporaryFile(prefix="openvis-buckets-")  # noqa: SIM115 - open as long as the rows exist
        with pa.ipc.new_file(self._file, schema) as writer:
            for rows in _together(tables):
                (batch,) = rows.combine_chunks().to_batches()
                numbers = np.array([hash(video_id) % BUCKETS for video_id in batch["video_id"].to_pylist()])
                batch = batch.take(pa.array(np.argsort(numbers, kind="stable")))
                ends = np.cumsum(np.bincount(numbers, minlength=BUCKETS)).tolist()
                for start, end in zip([0, *ends], ends, strict=False):
                    writer.write_batch(batch.slice(start, end - start))
        self._reader = pa.ipc.open_file(self._file)

    def read(self, number: int) -> pa.Table:
        """Returns the rows of a bucket, in the order in which they came."""
        batches = range(number, self._reader.num_record_batches, BUCKETS)
        return pa.Table.from_batches(map(self._reader.get_batch, batches), self._schema)


def _together(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yields the rows in tables of about `BATCH` rows, none of them empty."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(rows.num_rows for rows in held) >= BATCH:
            yield pa.concat_tables(held)
            held = []
    if any(rows.num_rows for rows in held):
        yield pa.concat_tables(held)
