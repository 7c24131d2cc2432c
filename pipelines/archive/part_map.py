"""Work on the parts of an archive: in this process if the archive is small, otherwise on the cluster."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.archive.tables import Results
from pipelines.storage.files import ELSEWHERE

SMALL_BYTES = 256e6
"""Up to this size of the files to read, this process finishes before a cluster has started."""

_THREADS = 8  # parts at a time in this process

Work = Callable[[str, pa.Array | None], Mapping[str, Any]]
"""Called with the name of a part and the ids of its videos to work on; None for all of them."""


@dataclass(frozen=True)
class PartTask:
    """Does the work on one part and puts what went wrong into the row that it returns. Can be pickled.

    Attributes:
        results: the archive.
        work: the work.
    """

    results: Results
    work: Work

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Returns what the work returned, with `part`, `error`, and `gone` for a part that no longer exists."""
        part, ids = row["part"], row["video_ids"]
        outcome: dict[str, Any] = {"part": part, "error": None, "gone": False}
        try:
            try:
                return {**outcome, **self.work(part, None if ids is None else pa.array(list(ids), pa.string()))}
            except FileNotFoundError:
                if part in self.results.parts():
                    raise
                return outcome | {"gone": True}
        except (OSError, ValueError) as error:
            return outcome | {"error": str(error)}


def map_parts(
    results: Results, work: Work, tables: Sequence[str], video_ids: pa.Array | None = None
) -> Iterator[dict[str, Any]]:
    """Does the work on every part; a part that fails does not stop the others.

    If a compaction replaces parts meanwhile, the work continues with the parts that have their videos then: it is done
    once for each video that counts.

    Args:
        results: the archive.
        work: returns a row; sent to the tasks. May raise FileNotFoundError for a part that no longer exists.
        tables: tables that the work reads.
        video_ids: videos to work on; all that count if None.

    Yields:
        What the work returned, as it finishes, with `part` and `error`: the ValueError or OSError that it raised, or
        None.

    Raises:
        RuntimeError: the work raised any other error, or Ray repeatedly lost its processes.
    """
    wanted = {part: ids for part, ids in results.counting(video_ids).items() if len(ids)}
    while wanted:
        gone = []
        sizes = results.sizes(tables)
        small = sum(sizes.get(part, 0) for part in wanted) <= SMALL_BYTES
        for row in _map(results, work, wanted, small=small):
            if row.pop("gone"):
                gone.append(row["part"])
            else:
                yield row
        current = set(results.parts()) if gone else set()
        trouble = "lost this part for a moment; run again" if small else ELSEWHERE
        yield from (
            {"part": part, "error": f"labels: {results.storage.root} {trouble}"} for part in gone if part in current
        )
        lost = [wanted[part] for part in gone if part not in current]
        wanted = dict(results.counting(pa.concat_arrays(lost))) if lost else {}


def _map(results: Results, work: Work, wanted: Mapping[str, pa.Array], *, small: bool) -> Iterator[dict[str, Any]]:
    listed = dict(zip(wanted, results.listed(list(wanted)), strict=True))
    rows = [
        {"part": part, "video_ids": None if len(ids) == listed[part].num_rows else ids.to_pylist()}
        for part, ids in wanted.items()
    ]
    task = PartTask(results, work)
    if small:
        return _map_here(task, rows)
    from pipelines.archive.cluster_map import map_on_cluster

    return map_on_cluster(task, rows)


def _map_here(task: PartTask, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    pool = ThreadPoolExecutor(_THREADS)
    try:
        for future in as_completed([pool.submit(task, row) for row in rows]):
            try:
                yield future.result()
            except Exception as error:
                raise RuntimeError(f"{type(error).__name__}: {error}") from error
    finally:
        pool.shutdown(cancel_futures=True)
