"""The Ray that jobs run on: a cluster that is there, or one on this machine."""

import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import services
from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.exceptions import (
    AuthenticationError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    WorkerCrashedError,
)
from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError

_LOSSES = (RayActorError, WorkerCrashedError, NodeDiedError, ObjectLostError, LocalRayletDiedError, RayOutOfMemoryError)
_LOSS_IN_TEXT = re.compile(
    rf"ray\.exceptions\.({'|'.join(each.__name__ for loss in _LOSSES for each in (loss, *loss.__subclasses__()))})\b"
)

_PAUSE_S = 0.02  # of a batch's time, little; of what the loop would take in it, most

_stop = threading.Event()


def connect(slots: int) -> None:
    """Joins the running cluster, or starts Ray on this machine; keeps Ray's own messages out of the way.

    Args:
        slots: CPUs that Ray on this machine shall reckon with if it is started: places for work, not cores.

    Raises:
        ValueError: for RAY_ADDRESS, see `_cluster`.
        RuntimeError: there is a cluster, but it does not answer, or wants a token that is not here.
    """
    if ray.is_initialized():
        return
    cluster = _cluster()
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    before = signal.getsignal(signal.SIGTERM)
    with _silent_stderr():  # even the log level is logged; what goes wrong is raised
        try:
            ray.init(
                address=cluster or "local",
                num_cpus=None if cluster else slots,
                include_dashboard=None if cluster else False,  # three more processes to start, for one run
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except AuthenticationError as error:
            raise RuntimeError(
                f"the Ray cluster at {cluster} wants a token; set RAY_AUTH_TOKEN, or copy its ~/.ray/auth_token"
            ) from error
        except ConnectionError as error:
            raise RuntimeError(
                f"the Ray cluster at {cluster} does not answer; start it, or set RAY_ADDRESS=local to do without"
            ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray takes it for itself, and dies of it with a crash report


def _cluster() -> str | None:
    """Address of the cluster that jobs run on, found as Ray does: in RAY_ADDRESS, or `ray start` was called here.

    Raises:
        ValueError: RAY_ADDRESS is no address, or `auto` where there is no cluster.
    """
    try:
        address: str | None = services.canonicalize_bootstrap_address(None)  # type: ignore[arg-type] # as ray.init does
    except (ValueError, ConnectionError) as error:
        text = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"RAY_ADDRESS: {text}; give the address of a cluster, or `local`") from error
    return address


def check_gpus(gpus_name: str, gpus: float, workers_name: str, workers: int, here: int) -> None:
    """Whether this machine has the GPUs that are asked for: a cluster may grow; a machine will not.

    Args:
        gpus_name: option that says how many GPUs each process has.
        gpus: its value.
        workers_name: option that says how many processes there are.
        workers: its value.
        here: GPUs of this machine.

    Raises:
        ValueError: there are fewer, and no cluster: the run would wait for ever.
    """
    wanted = gpus * workers
    if wanted > here and not ray.is_initialized() and _cluster() is None:
        raise ValueError(
            f"{gpus_name}: {workers} {workers_name} want {wanted:g} GPUs, this machine has {here}; "
            f"lower {gpus_name} or {workers_name}, or set RAY_ADDRESS to a cluster"
        )


def calm_data(context: DataContext) -> None:
    """Keeps Ray Data's messages out of the way of the pipelines that have this context, and its loop from spinning."""
    context.enable_progress_bars = False
    context.execution_options.verbose_progress = False
    context.custom_execution_callback_classes = [_Pause]
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # an error is raised, and told once


@contextmanager
def data_stopped() -> Iterator[None]:
    """While the block runs, pipelines of this process that `calm_data` was called for end, with an error."""
    _stop.set()
    try:
        yield
    finally:
        _stop.clear()


class _Pause(ExecutionCallback):
    """Between the steps of Ray Data's loop.

    The loop waits only while some task has nothing to read. Where a pipeline is ahead of its consumer all tasks have,
    and without a pause the loop takes a core, and the interpreter's lock from whoever trains in the same process.
    """

    def on_execution_step(self, executor: Any) -> None:
        """Called by Ray Data after each step."""
        if _stop.wait(_PAUSE_S):
            raise RuntimeError("told to stop")


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keeps what native code writes to stderr from a person's terminal."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def is_loss(error: BaseException | None) -> bool:
    """Whether Ray lost a process, a machine or what it held, rather than that code raised an error."""
    while error:
        if isinstance(error, _LOSSES) or _LOSS_IN_TEXT.search(str(error)):  # a task's error has its causes as text
            return True
        error = error.__cause__
    return False


def reason(error: BaseException | None) -> str:
    """What an error of Ray is about: the first error in the traceback that it has as its text."""
    lines = re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    return (named or lines or [repr(error)])[0]
