"""Rewriting the output: rows that do not count go, small parts become large ones.

Parts never change: what is to stay of some is written as a new part, which comes last and so counts, and then they are
removed. Interrupted anywhere, the tables read the same, and the next time does the rest. For whoever holds the lease.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelines.lease import Lease, hold_lease
from pipelines.parts import Rows
from pipelines.results import SCHEMAS, Results
from pipelines.storage import Storage

_SETTLE_BYTES = 128e6  # of parts that become one


@dataclass(frozen=True, kw_only=True)
class CompactConfig:
    """A compaction.

    Attributes:
        output: folder of the tables, local or s3://.
        part_mb: size that parts are to have, of their files on the disk, 10⁶ bytes.
    """

    output: str
    part_mb: float = 128.0

    def __post_init__(self) -> None:
        if not self.part_mb > 0:
            raise ValueError(f"part_mb: expected more than 0, got {self.part_mb}")


@dataclass(frozen=True, kw_only=True)
class CompactSummary:
    """What a compaction did: number of parts, and their size in bytes."""

    parts_before: int
    parts: int
    bytes: int


def compact(config: CompactConfig) -> CompactSummary:
    """Merges parts of less than half the size, one after the other, into parts of it.

    Raises:
        ValueError: the output is not there, a file of it is damaged, or another run is writing to it.
        RuntimeError: the lease on the output was lost.
    """
    results = Results(Storage(config.output))
    if not results.storage.is_there():
        raise ValueError(f"output: {config.output} is not there; give the output of a labelling run")
    with hold_lease(results.storage) as lease:
        before = len(results.parts())
        settle(results, lease)
        sizes = _sizes(results)
        target = config.part_mb * 1e6
        small = [part for part in results.parts() if sizes[part] < target / 2]
        for group in _groups(small, sizes, target):
            if len(group) > 1:
                _merge(results, group, lease)
        after = results.parts()
        sizes = _sizes(results)
    return CompactSummary(parts_before=before, parts=len(after), bytes=sum(sizes[part] for part in after))


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
        for name in set(results.names(table)) - set(parts):
            lease.check()
            results.storage.remove(f"{table}/{name}.parquet")
    listed, counting = results.listed(parts), results.counting()
    stale = [part for part, videos in zip(parts, listed, strict=True) if videos.num_rows > len(counting[part])]
    for group in _groups(stale, _sizes(results) if stale else {}, _SETTLE_BYTES):
        _merge(results, group, lease)


def _merge(results: Results, parts: Sequence[str], lease: Lease) -> None:
    """Replaces parts by one that has those of their rows that count."""
    counting = results.counting()
    merged = Rows()
    for part in parts:
        for table in SCHEMAS:
            for rows in results.row_groups(table, part, counting[part]):
                merged.add_table(table, rows)
    lease.check()
    if any(len(counting[part]) for part in parts):
        merged.put(results.storage, f"{results.next_run()}-{uuid.uuid4().hex[:12]}")
    else:
        merged.discard()
    for part in parts:
        lease.check()
        for table in SCHEMAS:  # videos first: from then on it does not count
            results.storage.remove(f"{table}/{part}.parquet")


def _groups(parts: Sequence[str], sizes: Mapping[str, int], target: float) -> Iterator[list[str]]:
    """Cuts a list of parts where one more would be too much."""
    group: list[str] = []
    for part in parts:
        if group and sum(sizes[each] for each in group) + sizes[part] > target:
            yield group
            group = []
        group.append(part)
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
