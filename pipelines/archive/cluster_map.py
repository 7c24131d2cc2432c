"""Work on the parts of a large archive, spread over the cluster with Ray Data."""

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any

import ray
from ray.data import DataContext
from ray.exceptions import RayError

from pipelines.cluster.connection import connect
from pipelines.cluster.errors import reason
from pipelines.cluster.liveness import RayDiedError, check_ray, waiting_for_ray
from pipelines.cluster.nodes import cores
from pipelines.cluster.ray_data import calm_data, data_stopped

READER = "openvis-results"
"""Name of the thread that reads results."""

_END_S = 10.0
_MAX_BLOCKS = 1024  # each block is an object in Ray's store


def map_on_cluster(
    task: Callable[[dict[str, Any]], dict[str, Any]], rows: Sequence[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Applies `task` to every row, each in a Ray task with one CPU; yields results as they finish.

    Raises:
        RuntimeError: the task raised an error, Ray repeatedly lost its processes, or Ray itself died.
    """
    connect(cores())
    calm_data(DataContext.get_current())
    dataset = ray.data.from_items(list(rows), override_num_blocks=min(len(rows), _MAX_BLOCKS)).map(task, num_cpus=1)
    results: SimpleQueue[dict[str, Any] | BaseException | None] = SimpleQueue()

    def read() -> None:
        try:
            with waiting_for_ray():
                for row in dataset.iter_rows():
                    results.put(row)
            results.put(None)
        except BaseException as error:
            results.put(error)

    # A thread, because reading would wait forever for a Ray that has died.
    reader, patience_s = threading.Thread(target=read, name=READER, daemon=True), _END_S
    reader.start()
    try:
        while (result := _next(results)) is not None:
            if isinstance(result, RayError):
                raise RuntimeError(reason(result)) from result
            if isinstance(result, BaseException):
                raise result
            yield result
    except RayDiedError:
        patience_s = 0.0
        raise
    finally:
        with data_stopped():  # otherwise a reader whose results are no longer wanted would go on
            reader.join(patience_s)


def _next(results: "SimpleQueue[Any]") -> Any:
    """Returns the next result once there is one; raises as `check_ray`."""
    while True:
        try:
            return results.get(timeout=0.5)
        except Empty:
            check_ray()
