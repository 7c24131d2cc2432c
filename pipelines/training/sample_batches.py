"""Samples in batches, made in parallel by Ray Data: what keeps a training worker supplied.

    steps → actor pool of samplers → rows, one per step and in order → lists

Sample number i is the same whoever makes it and when. Step s has the numbers s · B to s · B + B - 1, of which each
worker takes its share; so training can go on at any step, with any number of workers.
"""

import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.data import ActorPoolStrategy, ExecutionResources

from pipelines.cluster import calm_data

T = TypeVar("T")

AHEAD_BYTES = 512 * 2**20
"""Of finished samples that wait for a worker to take them."""

_TASKS = 1000  # planned before the first one starts, at a millisecond each; more if they would get too long
_MOST_STEPS = 8  # of a task
_JOIN_S = 10  # they end in a tenth of a second


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which samples a worker gets.

    Attributes:
        first_step: where training begins or goes on, from 0.
        last_step: the step after the last one.
        batch_size: samples of a step, of all workers together.
        rank: of the worker, from 0.
        world_size: number of workers.
    """

    first_step: int
    last_step: int
    batch_size: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.first_step <= self.last_step:
            raise ValueError(
                f"first_step, last_step: expected 0 <= first <= last, got {self.first_step} and {self.last_step}"
            )
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank: expected 0 to {self.world_size - 1} (world_size - 1), got {self.rank}")
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise ValueError(
                f"batch_size: expected a multiple of world_size ({self.world_size}), got {self.batch_size}; change one"
            )

    def numbers(self, step: int) -> range:
        """The worker's samples of a step."""
        local = self.batch_size // self.world_size
        start = step * self.batch_size + self.rank * local
        return range(start, start + local)


def batches(
    open_sampler: Callable[[], Callable[[int], T]], share: Share, *, decoders: int, ahead_bytes: int = AHEAD_BYTES
) -> Iterator[list[T]]:
    """Yields a worker's samples, a list per step.

    Closing the iterator ends the processes.

    Args:
        open_sampler: called once in each process; returns what makes a sample of its number. Both are pickled.
        share: which samples.
        decoders: processes, which take a CPU of the cluster each.
        ahead_bytes: about how much may be made before it is needed.

    Raises:
        ValueError: a number that makes no sense; more decoders of all workers than the cluster has CPUs, for which they
            would wait for ever; while iterating, at its step, what the sampler raised.
        RuntimeError: while iterating, that the pipeline broke.
    """
    if decoders < 1:
        raise ValueError(f"decoders: expected at least 1, got {decoders}")
    cpus = ray.cluster_resources().get("CPU", 0)  # type: ignore[no-untyped-call]
    if decoders * share.world_size > cpus:
        raise ValueError(
            f"decoders: {decoders} for each of {share.world_size} workers, but the cluster has {cpus:g} CPUs; "
            "lower decoders or start Ray with more"
        )
    return _batches(open_sampler, share, decoders, ahead_bytes)


def _batches(
    open_sampler: Callable[[], Callable[[int], T]], share: Share, decoders: int, ahead_bytes: int
) -> Iterator[list[T]]:
    steps = share.last_step - share.first_step
    if not steps:
        return
    # Without a batch size Ray fuses this with the actors: no task needs a CPU besides theirs.
    steps_per_task = min(_MOST_STEPS, -(-steps // _TASKS))
    dataset = ray.data.range(steps, override_num_blocks=-(-steps // steps_per_task))
    context = dataset.context  # this pipeline's own
    calm_data(context)
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=ahead_bytes)
    context.target_max_block_size = 1  # a row is handed on as soon as it is made
    context._max_num_blocks_in_streaming_gen_buffer = _MOST_STEPS  # ... and those of later tasks need not wait
    # Some steps → 1 row each. Two tasks in flight: one waits at the actor while one runs.
    dataset = dataset.map_batches(
        _Draw,
        fn_constructor_args=(open_sampler, share),
        batch_size=None,
        compute=ActorPoolStrategy(size=decoders, max_tasks_in_flight_per_actor=2),
        num_cpus=1,
    )
    rows: Any = iter(dataset.iter_batches(batch_size=1, prefetch_batches=2, batch_format="numpy"))
    with _threads_ended(), closing(rows):
        while (row := _next(rows)) is not None:
            if row["error"][0]:
                raise ValueError(row["error"][0])
            samples: list[T] = pickle.loads(row["samples"][0])  # noqa: S301 - from our own actors
            yield samples


@contextmanager
def _threads_ended() -> Iterator[None]:
    """Waits at the end for the threads in which Ray Data made batches here.

    Closing its iterator only tells them to end; one that still calls Ray after `ray.shutdown` ends the whole process.
    """
    others = set(threading.enumerate())
    try:
        yield
    finally:
        for thread in set(threading.enumerate()) - others:
            if thread.name == "iter_threaded":
                thread.join(timeout=_JOIN_S)


def _next(rows: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return next(rows, None)
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"the data pipeline broke: {error}") from error


class _Draw:
    """Rows of steps become rows of samples, or of the error."""

    def __init__(self, open_sampler: Callable[[], Callable[[int], Any]], share: Share) -> None:
        self.sampler = open_sampler()
        self.share = share

    def __call__(self, rows: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for step in rows["id"].tolist():
            try:
                samples = [self.sampler(number) for number in self.share.numbers(self.share.first_step + step)]
            except ValueError as error:
                yield {"samples": [b""], "error": [str(error) or repr(error)]}
                return
            yield {"samples": [pickle.dumps(samples, protocol=5)], "error": [""]}
