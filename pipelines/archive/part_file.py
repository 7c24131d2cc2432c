"""Reads a file of a part: of a large one elsewhere, only the bytes that are asked for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.archive.schemas import LATER, schema_of
from pipelines.storage.files import Storage, plan_reads
from pipelines.storage.ranged_file import Range


@contextmanager
def naming_damage(file: str, remedy: str = "remove it") -> Iterator[None]:
    """Turns Arrow's errors about the content of a file into a ValueError that names it; those of the storage pass.

    Args:
        file: full name of the Parquet file that the block reads.
        remedy: what to do about it.
    """
    try:
        yield
    except (pa.ArrowException, KeyError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the storage
            raise
        raise ValueError(f"{file}: damaged ({error}); {remedy}") from error


def read_row_groups(
    storage: Storage, table: str, part: str, video_ids: pa.Array | None = None, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Yields a table's rows in one part, or those of some videos, a row group at a time; reads no other bytes.

    Raises:
        FileNotFoundError: the part is absent, or is removed while it is read.
        ValueError: the part is damaged.
    """
    if video_ids is not None and not len(video_ids):
        return
    schema, path = schema_of(table, columns), f"{storage.root}/{table}/{part}.parquet"
    with storage.read(f"{table}/{part}.parquet") as file, naming_damage(path):
        source = pq.ParquetFile(file)
        there = source.schema_arrow.names
        if missing := set(schema.names).difference(there, LATER):
            raise ValueError(f"{path}: has no column {missing.pop()}, written by another version; label again")
        wanted = columns and ["video_id", *(name for name in columns if name in there)]
        groups = [
            group
            for group in range(source.num_row_groups)
            if video_ids is None or _may_have(source.metadata.row_group(group), video_ids)
        ]
        plan_reads(file, _byte_ranges(source.metadata, groups, wanted))
        for group in groups:
            # Threads of pyarrow's scanner can abort the process at its end where torch is loaded too.
            rows = source.read_row_group(group, wanted, use_threads=False)
            if video_ids is not None:
                rows = rows.filter(pc.is_in(rows["video_id"], video_ids))
            for name in set(schema.names).difference(there):
                rows = rows.append_column(name, pa.nulls(rows.num_rows, schema.field(name).type))
            yield rows.select(schema.names).cast(schema)


def _may_have(group: pq.RowGroupMetaData, video_ids: pa.Array) -> bool:
    """Returns whether a row group's statistics allow for rows of some videos."""
    statistics = group.column(0).statistics  # video_id is the first column of every table
    if statistics is None or not statistics.has_min_max:
        return True
    within = pc.and_(pc.greater_equal(video_ids, statistics.min), pc.less_equal(video_ids, statistics.max))
    return bool(pc.any(within).as_py())


def _byte_ranges(metadata: pq.FileMetaData, groups: Sequence[int], columns: Sequence[str] | None) -> Iterator[Range]:
    """Yields where the columns of some row groups are in a file."""
    for group in groups:
        chunks = (metadata.row_group(group).column(index) for index in range(metadata.num_columns))
        for chunk in chunks:
            if columns is None or chunk.path_in_schema.partition(".")[0] in columns:
                start = chunk.dictionary_page_offset or chunk.data_page_offset
                yield start, start + chunk.total_compressed_size
