"""Ray Data's pipelines: their limits, their pace, and the processes of their actors."""

import logging
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private.state import actors
from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.exceptions import RayActorError

_SHORTEST_S, _LONGEST_S = 0.02, 0.25
_OF_WAIT = 0.25
"""A pause as a share of the time for which nothing has moved, so that it adds little to that time."""

_stop = threading.Event()

RESTARTS = 4
"""How often an actor of a pipeline is restarted, and how many in a row may die while they start."""


def calm_data(context: DataContext) -> None:
    """Silences Ray Data in pipelines with this context, keeps its loop from spinning, and sets its limits."""
    context.enable_progress_bars = False
    context.execution_options.verbose_progress = False
    context.custom_execution_callback_classes = [_Pause]
    context.execution_no_progress_timeout_s = -1  # after 30 minutes it would end a run whose `stall_s` is longer
    context.max_consecutive_actor_init_deaths = RESTARTS
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised, so they need no log


@contextmanager
def data_stopped() -> Iterator[None]:
    """Ends the pipelines of this process with an error while the block runs, if `calm_data` was called for them."""
    _stop.set()
    try:
        yield
    finally:
        _stop.clear()


class _Pause(ExecutionCallback):
    """A pause between the steps of Ray Data's loop, longer while no block moves.

    The loop waits only while no task has output to read. When a pipeline is ahead of its consumer, all tasks have, and
    without a pause the loop would take a whole core, and the interpreter's lock from other threads.
    """

    def __init__(self) -> None:
        self._moved, self._since = -1, 0.0

    def on_execution_step(self, executor: Any) -> None:
        """Called by Ray Data after each step."""
        if _stop.wait(self._pause_s(executor._topology)):
            raise RuntimeError("stopped")

    def _pause_s(self, operators: Iterable[Any]) -> float:
        """Returns how long to pause, seconds.

        Args:
            operators: those of the pipeline.
        """
        moved = sum(each.metrics.num_inputs_received + each.metrics.num_outputs_taken for each in operators)
        if moved != self._moved:
            self._moved, self._since = moved, time.monotonic()
        return min(max(_SHORTEST_S, _OF_WAIT * (time.monotonic() - self._since)), _LONGEST_S)


class RestartsError(RuntimeError):
    """The process of an actor died too often."""


def check_restarts(most: int = RESTARTS) -> None:
    """Ends an actor whose constructor calls this, once it was restarted too often; Ray Data sets no such limit.

    An actor that has never started is not restarted at all: Ray Data replaces it by another one, maybe elsewhere.

    Args:
        most: how often an actor may be restarted.

    Raises:
        RestartsError: it was restarted more often.
        RuntimeError: its process died while it started.
    """
    if not ray.is_initialized() or (actor := ray.get_runtime_context().get_actor_id()) is None:
        return
    life = actors(actor)
    if life["NumRestarts"] and not life["StartTime"]:
        raise RuntimeError("the process died while it loaded the model")
    if life["NumRestarts"] > most:
        raise RestartsError(f"the process that runs the model died {life['NumRestarts']} times")


def dead_actors() -> set[str]:
    """Returns the ids of the actors of this process's Ray Data pipelines that have died."""
    job = ray.JobID(bytes.fromhex(ray.get_runtime_context().get_job_id()))
    dead = actors(job_id=job, actor_state_name="DEAD")
    return {actor for actor, life in dead.items() if life["ActorClassName"].startswith("MapWorker")}


def has_never_started(error: BaseException, dead: Collection[str]) -> bool:
    """Returns whether an error ended a pipeline because none of its actors could start.

    Args:
        error: that of the pipeline.
        dead: ids of the actors that died in it.
    """
    failed = isinstance(error, RayActorError) and error.actor_init_failed
    return failed and RestartsError.__name__ not in str(error) and len(dead) > RESTARTS
