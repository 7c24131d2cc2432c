"""Work on each part of an output by itself, spread over the cluster by Ray Data."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.data import DataContext

from pipelines.cluster import calm_data, connect
from pipelines.results import Results

_MAX_BLOCKS = 1024  # of parts; each is an object of Ray

Work = Callable[[str, pa.Array | None], Mapping[str, Any]]
"""What to do with a part, of whose videos those with these ids count; all of them, for None."""


def counting_parts(results: Results) -> dict[str, list[str] | None]:
    """Parts that have videos whose rows count, and the ids of these; None where it is all of them."""
    counting = results.counting()
    rows = dict(zip(counting, results.listed(list(counting)), strict=True))
    return {
        part: None if len(ids) == rows[part].num_rows else ids.to_pylist() for part, ids in counting.items() if len(ids)
    }


def map_parts(parts: Mapping[str, Sequence[str] | None], work: Work) -> Iterator[dict[str, Any]]:
    """Does the work on each part, each in a task of its own; a part that fails does not stop the others.

    Args:
        parts: as from `counting_parts`.
        work: returns a row; sent to the tasks.

    Yields:
        What the work returned as it gets done, with `part` and `error`: what it raised, a ValueError or OSError, or
        null.
    """
    if not parts:
        return
    connect(os.cpu_count() or 1)
    calm_data(DataContext.get_current())
    rows = [{"part": part, "video_ids": ids and list(ids)} for part, ids in parts.items()]
    dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS))
    yield from dataset.map(_Task(work), num_cpus=1).iter_rows()


@dataclass(frozen=True)
class _Task:
    work: Work

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        part, ids = row["part"], row["video_ids"]
        try:
            found = self.work(part, None if ids is None else pa.array(list(ids), pa.string()))
        except FileNotFoundError:
            return {"part": part, "error": "was merged with others meanwhile; run again"}
        except (OSError, ValueError) as error:
            return {"part": part, "error": str(error)}
        return {"part": part, "error": None, **found}
