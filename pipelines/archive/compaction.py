"""Rewriting the output: rows that do not count go, small parts become large ones.

Parts never change: what is to stay of some is written as a new part, which comes last and so counts, and then they are
removed. Interrupted anywhere, the tables read the same, and the next time does the rest. For whoever holds the lease.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipelines.archive.config import PART_MB, CompactConfig
from pipelines.archive.parts import Rows
from pipelines.archive.tables import SCHEMAS, Results, open_labels
from pipelines.storage.lease import Lease, hold_lease

_REMOVERS = 16  # files at a time


@dataclass(frozen=True, kw_only=True)
class CompactSummary:
    """What a compaction did: number of parts, and their size in bytes."""

    parts_before: int
    parts: int
    bytes: int


def compact(config: CompactConfig) -> CompactSummary:
    """Merges parts of less than half the size, one after the other, into parts of it.

    Raises:
        ValueError: the output is not there or has no labels, a file is damaged, or another run is writing to it.
        RuntimeError: the lease on the output was lost.
    """
    results = open_labels(config.output, "output")
    before = results.parts()
    with hold_lease(results.storage) as lease:
        settle(results, lease)
        parts, sizes, target = results.parts(), _sizes(results), config.part_mb * 1e6
        small = [part for part in parts if sizes[part] < target / 2]
        if groups := [group for group in _groups(small, sizes, target) if len(group) > 1]:
            _merge(groups, results, lease)
        after, sizes = results.parts(), _sizes(results)
    return CompactSummary(parts_before=len(before), parts=len(after), bytes=sum(sizes[part] for part in after))


def settle(results: Results, lease: Lease) -> None:
    """Removes what readers leave aside: files of parts that are not whole, and rows of videos that do not count.

    Args:
        results: the output.
        lease: on it.

    Raises:
        RuntimeError: the lease was lost.
    """
    parts = results.parts()
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
        _merge(_groups(kept, _sizes(results), PART_MB * 1e6), results, lease)


def _merge(groups: Iterable[Sequence[str]], results: Results, lease: Lease) -> None:
    """Replaces each group of parts by one that has those of their rows that count."""
    counting, run = results.counting(), results.next_run()  # what counts does not change by it
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
    for table in SCHEMAS:  # videos first: from then on they do not count
        _remove([f"{table}/{part}.parquet" for part in parts], results, lease)


def _remove(paths: Sequence[str], results: Results, lease: Lease) -> None:
    with ThreadPoolExecutor(_REMOVERS) as pool:
        for start in range(0, len(paths), 8 * _REMOVERS):
            lease.check()
            list(pool.map(results.storage.remove, paths[start : start + 8 * _REMOVERS]))


def _groups(parts: Sequence[str], sizes: Mapping[str, int], target: float) -> Iterator[list[str]]:
    """Cuts a list of parts where one more would be too much."""
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


def _sizes(results: Results) -> dict[str, int]:
    """Bytes of each part."""
    sizes: dict[str, int] = {}
    for table in SCHEMAS:
        for path, size in results.storage.sizes(table):
            name = path.removeprefix(f"{table}/").removesuffix(".parquet")
            sizes[name] = sizes.get(name, 0) + size
    return sizes
