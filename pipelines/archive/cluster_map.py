"""Work on the parts of a large archive, spread over the cluster with Ray Data."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.data import DataContext
from ray.exceptions import RayError

from pipelines.cluster import calm_data, connect, reason

_MAX_BLOCKS = 1024  # each block is an object in Ray's store


def map_on_cluster(
    task: Callable[[dict[str, Any]], dict[str, Any]], rows: Sequence[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Applies `task` to every row, each in a Ray task with one CPU; yields results as they finish.

    Raises:
        RuntimeError: the task raised an error, or Ray repeatedly lost its processes.
    """
    connect(os.cpu_count() or 1)
    calm_data(DataContext.get_current())
    dataset = ray.data.from_items(list(rows), override_num_blocks=min(len(rows), _MAX_BLOCKS))
    try:
        yield from dataset.map(task, num_cpus=1).iter_rows()
    except RayError as error:
        raise RuntimeError(reason(error)) from error
