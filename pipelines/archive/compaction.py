"""Compaction of an archive: rows that do not count are removed, and small parts merged.

Parts never change. The rows to keep are written as a new part, which comes last and so counts; then one commit per
table registers it in place of the old parts, and those are listed as replaced. Their files are deleted later, because
readers may have begun with them. After an interruption anywhere the tables read the same, and the next run does the
rest. Whoever calls these functions holds the lease on the output.
"""

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from pipelines.archive.config import KEEP_H, PART_MB, CompactConfig
from pipelines.archive.parts import Rows
from pipelines.archive.registration import Registration, forget
from pipelines.archive.reviews import REVIEWS, Reviews
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.stale import Stale, counting, find_stale
from pipelines.archive.tables import REMOVAL, Results, open_labels
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
    results = open_labels(config.labels)
    before = results.parts()
    with hold_lease(results.storage) as lease:
        if config.repair:
            forget(results.storage)
        settle(results, lease, config.keep_h)
        parts, sizes, target = results.parts(), results.sizes(), config.part_mb * 1e6
        small = [part for part in parts if sizes[part] < target / 2]
        if groups := [group for group in _groups(small, sizes, target) if len(group) > 1]:
            merged = [part for group in groups for part in group]
            _replace(merged, groups, {}, results, lease, data_change=False)
        _merge_reviews(results, lease)
        _delete_replaced(results, lease, config.keep_h)
        after, sizes = results.parts(), results.sizes()
    return CompactSummary(parts_before=len(before), parts=len(after), bytes=sum(sizes[part] for part in after))


def settle(results: Results, lease: Lease, keep_h: float = KEEP_H) -> None:
    """Removes what readers ignore: files of parts that are not whole, rows that do not count, parts replaced long ago.

    Args:
        results: the archive.
        lease: the lease on its output.
        keep_h: how long replaced parts are kept for readers that have begun, hours.

    Raises:
        RuntimeError: the lease was lost.
        ValueError: a file or a log is damaged.
    """
    parts = results.parts()
    for path in ("runs/*", REMOVAL):
        results.storage.remove_partial(path)
    for table in SCHEMAS:
        lease.check()
        results.storage.remove_partial(f"{table}/*.parquet")
        left = set(results.names(table)).difference(parts, results.replaced())
        _remove([f"{table}/{name}.parquet" for name in left], results, lease)
    if not Registration(results, lease).lists(parts):  # or else all of their rows count
        _replace_stale(results, parts, lease)
    _delete_replaced(results, lease, keep_h)


def _replace_stale(results: Results, parts: Sequence[str], lease: Lease) -> None:
    """Replaces parts with rows that do not count by parts without."""
    stale = find_stale(results, parts)
    kept = [part for part, rows in stale.items() if len(rows) < _count(part, results)]
    groups = _groups(kept, results.sizes(), PART_MB * 1e6) if kept else ()
    _replace(list(stale), groups, stale, results, lease)


def _count(part: str, results: Results) -> int:
    return sum(videos.num_rows for videos in results.row_groups("videos", part, columns=("video_id",)))


def _replace(
    old: Sequence[str],
    groups: Iterable[Sequence[str]],
    stale: Stale,
    results: Results,
    lease: Lease,
    *,
    data_change: bool = True,
) -> None:
    """Replaces each group of old parts by one part with the rows that count, and other old parts by nothing.

    All parts are registered, and the old ones no longer.
    """
    parts = results.parts()
    merged = _merge(groups, stale, results, lease)
    registration = Registration(results, lease)
    registration.replace({*parts, *merged}.difference(old), old, data_change=data_change)
    _mark_replaced(old, results, lease)


def _merge_reviews(results: Results, lease: Lease) -> None:
    """Merges the parts of `reviews`; registers the merged one, and no other: two may have the same decision."""
    parts, old = Reviews(results.storage).merge_parts(lease)
    Registration(results, lease, (REVIEWS,)).replace(parts, old)
    _mark_replaced(old, results, lease)


def _merge(groups: Iterable[Sequence[str]], stale: Stale, results: Results, lease: Lease) -> list[str]:
    """Puts a part with the rows of each group that count in place; returns their names."""
    names, run = list[str](), ""
    for group in groups:
        run = run or results.next_run()
        names.append(f"{run}-{uuid.uuid4().hex[:12]}")
        merged = Rows()
        try:
            for part in group:
                ids = _ids_that_count(part, stale, results)
                for table in SCHEMAS:
                    for rows in results.row_groups(table, part, ids):
                        merged.add_table(table, rows)
            lease.check()
            merged.put(results.storage, names[-1])
        finally:
            merged.discard()
    return names


def _ids_that_count(part: str, stale: Stale, results: Results) -> pa.Array | None:
    """Returns the ids that count in a part; None if all do."""
    if part not in stale:
        return None
    (videos,) = results.scan_all("videos", ("video_id",), parts=[part])
    return counting(videos, stale[part])["video_id"].combine_chunks()


def _delete_replaced(results: Results, lease: Lease, keep_h: float) -> None:
    """Deletes the files of parts that were replaced long enough ago.

    They stay listed until the next time: whoever lists parts meanwhile finds that some were replaced.
    """
    replaced, now = results.replaced(), time.time()
    expired = {part for part, since in replaced.items() if now - since >= keep_h * 3600}
    if expired:
        there = {table: expired.intersection(results.names(table)) for table in SCHEMAS}
        there[REVIEWS] = expired.intersection(Reviews(results.storage).names())
        for table, parts in there.items():
            _remove([f"{table}/{part}.parquet" for part in parts], results, lease)
        if gone := expired.difference(*there.values()):
            _write_replaced({part: replaced[part] for part in replaced.keys() - gone}, results, lease)


def _mark_replaced(parts: Sequence[str], results: Results, lease: Lease) -> None:
    """Lists parts as replaced from now on."""
    if parts:
        _write_replaced(results.replaced() | dict.fromkeys(parts, time.time()), results, lease)


def _write_replaced(replaced: Mapping[str, float], results: Results, lease: Lease) -> None:
    lease.check()
    with results.storage.write(REMOVAL) as file:
        file.write(json.dumps(replaced).encode())


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
