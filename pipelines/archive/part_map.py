"""Work on the videos of an output, part by part, spread over the cluster by Ray Data."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.data import DataContext
from ray.exceptions import RayError

from pipelines.archive.tables import Results
from pipelines.cluster import ELSEWHERE, calm_data, connect, reason

_MAX_BLOCKS = 1024  # of parts; each is an object of Ray

Work = Callable[[str, pa.Array | None], Mapping[str, Any]]
"""What to do with a part, of whose videos those with these ids are wanted; all of them, for None."""


def map_parts(results: Results, work: Work, video_ids: pa.Array | None = None) -> Iterator[dict[str, Any]]:
    """Does the work on every part, each in a task of its own; a part that fails does not stop the others.

    Where parts are merged meanwhile, the work goes on with those that have their videos now: it is done once for
    each video that counts.

    Args:
        results: the output that is read.
        work: returns a row; sent to the tasks. May raise FileNotFoundError for a part that is gone.
        video_ids: of the videos that are wanted; all that count if None.

    Yields:
        What the work returned as it gets done, with `part` and `error`: what it raised, a ValueError or OSError, or
        null.

    Raises:
        RuntimeError: the work raised anything else, or Ray lost its processes again and again.
    """
    wanted = {part: ids for part, ids in results.counting(video_ids).items() if len(ids)}
    while wanted:
        gone = []
        for row in _map(results, work, wanted):
            if row.pop("gone"):
                gone.append(row["part"])
            else:
                yield row
        there = set(results.parts())
        yield from (
            {"part": part, "error": f"labels: {results.storage.root} {ELSEWHERE}"} for part in gone if part in there
        )
        lost = [wanted[part] for part in gone if part not in there]
        wanted = dict(results.counting(pa.concat_arrays(lost))) if lost else {}


def _map(results: Results, work: Work, wanted: Mapping[str, pa.Array]) -> Iterator[dict[str, Any]]:
    connect(os.cpu_count() or 1)
    calm_data(DataContext.get_current())
    sizes = dict(zip(wanted, results.listed(list(wanted)), strict=True))
    rows = [
        {"part": part, "video_ids": None if len(ids) == sizes[part].num_rows else ids.to_pylist()}
        for part, ids in wanted.items()
    ]
    dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS))
    try:
        yield from dataset.map(_Task(results, work), num_cpus=1).iter_rows()
    except RayError as error:
        raise RuntimeError(reason(error)) from error


@dataclass(frozen=True)
class _Task:
    results: Results
    work: Work

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        part, ids = row["part"], row["video_ids"]
        told: dict[str, Any] = {"part": part, "error": None, "gone": False}
        try:
            try:
                return {**told, **self.work(part, None if ids is None else pa.array(list(ids), pa.string()))}
            except FileNotFoundError:
                if part in self.results.parts():
                    raise
                return told | {"gone": True}
        except (OSError, ValueError) as error:
            return told | {"error": str(error)}
