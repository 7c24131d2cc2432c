"""Compaction of an archive: rows that do not count are removed, and small parts merged.

Parts never change. The rows to keep are written as a new part, which comes last and so counts; then readers are told
that their listings are out of date, and the old parts are removed. After an interruption anywhere the tables read the
same, and the next compaction does the rest. Whoever calls these functions holds the lease on the output.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipelines.archive.config import PART_MB, CompactConfig
from pipelines.archive.parts import Rows
from pipelines.archive.reviews import Reviews
from pipelines.archive.tables import REMOVAL, SCHEMAS, Results, open_labels
from pipelines.storage.lease import Lease, hold_lease

_REMOVERS = 16  # files at a time


@dataclass(frozen=True, kw_only=True)
class CompactSummary:
    """The result of a compaction: number of parts, and their size in bytes."""

    parts_before: int
    parts: int
    bytes: int


def compact(config: CompactConfig) -> CompactSummary:
    """Merges neighbouring parts of less than half the target size into parts of the target size, and all of `reviews`.

    Raises:
        ValueError: the output is missing or has no labels, a file is damaged, or another run is writing to it.
        RuntimeError: the lease on the output was lost.
    """
    results = open_labels(config.output, "output")
    before = results.parts()
    with hold_lease(results.storage) as lease:
        settle(results, lease)
        parts, sizes, target = results.parts(), results.sizes(), config.part_mb * 1e6
        small = [part for part in parts if sizes[part] < target / 2]
        if groups := [group for group in _groups(small, sizes, target) if len(group) > 1]:
            _merge(groups, results, lease)
        Reviews(results.storage).merge_parts(lease)
        after, sizes = results.parts(), results.sizes()
    return CompactSummary(parts_before=len(before), parts=len(after), bytes=sum(sizes[part] for part in after))


def settle(results: Results, lease: Lease) -> None:
    """Removes what readers ignore: files of parts that are not whole, and rows that do not count.

    Args:
        results: the archive.
        lease: the lease on its output.

    Raises:
        RuntimeError: the lease was lost.
    """
    parts = results.parts()
    for path in ("runs/*", REMOVAL):
        results.storage.remove_partial(path)
    for table in SCHEMAS:
        lease.check()
        results.storage.remove_partial(f"{table}/*.parquet")
        _remove([f"{table}/{name}.parquet" for name in set(results.names(table)) - set(parts)], results, lease)
    counting = results.counting()
    rows = dict(zip(parts, results.listed(parts), strict=True))
    stale = [part for part in parts if rows[part].num_rows > len(counting[part])]
    _remove_parts([part for part in stale if not len(counting[part])], results, lease)
    kept = [part for part in stale if len(counting[part])]
    if kept:
        _merge(_groups(kept, results.sizes(), PART_MB * 1e6), results, lease)


def _merge(groups: Iterable[Sequence[str]], results: Results, lease: Lease) -> None:
    """Replaces each group of parts by one part with the rows that count."""
    counting, run = results.counting(), results.next_run()  # merging does not change what counts
    for group in groups:
        merged = Rows()
        try:
            for part in group:
                for table in SCHEMAS:
                    for rows in results.row_groups(table, part, counting[part]):
                        merged.add_table(table, rows)
            lease.check()
            merged.put(results.storage, f"{run}-{uuid.uuid4().hex[:12]}")
        finally:
            merged.discard()
        _remove_parts(group, results, lease)


def _remove_parts(parts: Sequence[str], results: Results, lease: Lease) -> None:
    if not parts:
        return
    lease.check()
    with results.storage.write(REMOVAL) as file:
        file.write(uuid.uuid4().hex.encode())
    for table in SCHEMAS:  # videos first: without them the parts do not count
        _remove([f"{table}/{part}.parquet" for part in parts], results, lease)


def _remove(paths: Sequence[str], results: Results, lease: Lease) -> None:
    with ThreadPoolExecutor(_REMOVERS) as pool:
        for start in range(0, len(paths), 8 * _REMOVERS):
            lease.check()
            list(pool.map(results.storage.remove, paths[start : start + 8 * _REMOVERS]))


def _groups(parts: Sequence[str], sizes: Mapping[str, int], target: float) -> Iterator[list[str]]:
    """Yields lists of consecutive parts whose sizes add up to the target at most."""
    group: list[str] = []
    size = 0
    for part in parts:
        if group and size + sizes[part] > target:
            yield group
            group, size = [], 0
        group.append(part)
        size += sizes[part]
    if group:
        yield group
