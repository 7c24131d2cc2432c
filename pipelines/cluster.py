"""The Ray that jobs run on: a running cluster, or one that is started on this machine."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray._private import ray_constants, services, worker
from ray._private.state import actors, state
from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.exceptions import (
    AuthenticationError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RaySystemError,
    WorkerCrashedError,
)
from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError

_LOSSES = (RayActorError, WorkerCrashedError, NodeDiedError, ObjectLostError, LocalRayletDiedError, RayOutOfMemoryError)
_LOSS_IN_TEXT = re.compile(
    rf"ray\.exceptions\.({'|'.join(kind.__name__ for loss in _LOSSES for kind in (loss, *loss.__subclasses__()))})\b"
)

_T = TypeVar("_T")

_GONE_S = 20.0  # a GCS may come back; a minute after it is lost, Ray ends this process without a word
_PROBE_S = 2.0
_JOIN_S = 180.0  # a busy head takes some seconds
_KEPT = "what is committed is kept, run it again"

_PAUSE_S = 0.02  # short compared with a batch, long enough to save most of the loop's CPU time

KEEP_WORKERS = {"idle_worker_killing_time_threshold_ms": 60_000}
"""A setting of Ray, which by default ends idle workers after a second; each start of another takes a second of CPU."""

_stop = threading.Event()
_died = threading.Event()
_waiting = set[threading.Thread]()
_silent: dict[str, tuple[float, float]] = {}  # since when an address does not answer, and when that was last seen


def connect(slots: int) -> None:
    """Joins the running cluster, or starts Ray on this machine; keeps Ray's own messages out of the way.

    Args:
        slots: logical CPUs for a Ray that is started on this machine (task slots, not cores).

    After an error, Ray may go on trying in the background until this process ends.

    Raises:
        ValueError: RAY_ADDRESS is not an address, or is `auto` where no cluster runs.
        RuntimeError: the cluster is not responding, or requires a token that is missing here; or a Ray that was to be
            started here did not start in time.
    """
    if ray.is_initialized():
        return
    cluster = _cluster()
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with _last_words(), _silent_stderr():  # Ray logs even its log level; errors are raised
        try:
            if cluster:
                _while_ray_lives(lambda: _join(cluster), cluster)
            else:
                with _signals_held():
                    _while_ray_lives(lambda: _start(slots))
        except AuthenticationError as error:
            raise RuntimeError(
                f"the Ray cluster at {cluster} requires a token; set RAY_AUTH_TOKEN, or copy its ~/.ray/auth_token"
            ) from error
        except ConnectionError as error:
            raise RuntimeError(
                f"the Ray cluster at {cluster} is not responding; start it, or set RAY_ADDRESS=local to run without it"
            ) from error
        except Exception as error:
            if type(error) not in (Exception, RaySystemError):
                raise
            if cluster:
                raise RuntimeError(f"the Ray cluster at {cluster} cannot be joined: {error}") from error
            # Ray's ways of saying that its processes did not start in time
            raise RuntimeError("Ray did not start in time; run it again when this machine is less busy") from error


def _while_ray_lives(init: Callable[[], None], cluster: str | None = None) -> None:
    """Calls `init` in a thread: Ray waits for ever for a cluster that is away, or ends this process without a word.

    Args:
        init: connects this process to Ray.
        cluster: address of the cluster to join, if any.

    Raises:
        ConnectionError: nothing listens at the address, or what listens is no Ray, or does not answer.
        RayDiedError: a process of Ray died meanwhile.
    """
    connected: Future[None] = Future()
    _silent.clear()
    deadline = time.monotonic() + _JOIN_S

    def run() -> None:
        try:
            with waiting_for_ray():
                init()
        except BaseException as error:
            connected.set_exception(error)
        else:
            connected.set_result(None)
        threading.Event().wait()  # the processes that a thread has started for Ray end with the thread

    threading.Thread(target=run, daemon=True).start()
    while not wait([connected], timeout=0.2).done:
        check_ray()
        if cluster and (_is_away(cluster) or time.monotonic() > deadline):
            raise ConnectionError(cluster)
    connected.result()


def _join(cluster: str) -> None:
    ray.init(address=cluster, log_to_driver=False, logging_level=logging.ERROR)


def _start(slots: int) -> None:
    """Starts Ray on this machine; no other machine can reach it.

    Ray replaces 127.0.0.1 by the machine's address in the network, as other machines of a cluster need it, unless it
    knows that there is no cluster. All its processes then listen on the loopback interface only.
    """
    may_grow, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        ray.init(
            address="local",
            num_cpus=slots,
            include_dashboard=False,  # it would start three more processes for one run
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
            _system_config=KEEP_WORKERS,
        )
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = may_grow


def disconnect() -> None:
    """Ends the Ray that was started on this machine, or leaves the cluster; otherwise this happens at exit."""
    ray.shutdown()


def _cluster() -> str | None:
    """Returns the address of the running cluster, as Ray finds it: from RAY_ADDRESS or an earlier `ray start` here.

    Raises:
        ValueError: RAY_ADDRESS is not an address, or is `auto` where no cluster runs.
    """
    try:
        address: str | None = services.canonicalize_bootstrap_address(None)  # type: ignore[arg-type] # as ray.init does
    except (ValueError, ConnectionError) as error:
        text = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"RAY_ADDRESS: {text}; give the address of a cluster, or `local`") from error
    if address and not re.fullmatch(r"[\w.\-\[\]:]+:\d{1,5}", address):
        raise ValueError(f"RAY_ADDRESS: got {address!r}, expected HOST:PORT of a cluster's head, or `local`")
    return address


def thread_limit() -> int | None:
    """Returns what OMP_NUM_THREADS asks for; None if it does not, or on a cluster, where Ray itself sets it."""
    given, node = os.environ.get("OMP_NUM_THREADS", ""), _node()
    on_cluster = node is not None and not node.all_processes
    return int(given) if re.fullmatch(r"0*[1-9]\d{0,3}", given) and not on_cluster else None


def _node() -> Any:
    """Returns Ray's record of this process's node; None outside of Ray."""
    return worker._global_node


def node_id() -> str:
    """Returns Ray's id of this machine; empty outside of a cluster."""
    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""


def machines_to_go() -> dict[str, str]:
    """Returns the addresses of the cluster's machines that are about to be taken away, by Ray's ids.

    Raises:
        RayDiedError: as `check_ray`.
    """

    def ask() -> dict[str, str]:
        going = state.get_draining_nodes()
        return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] in going}  # type: ignore[no-untyped-call]

    return _told(ask)


def check_gpus(gpus_name: str, gpus: float, workers_name: str, workers: int, here: int) -> None:
    """Checks that this machine has the GPUs asked for; a cluster may grow, a machine will not.

    Args:
        gpus_name: option that sets the number of GPUs per process.
        gpus: value of that option.
        workers_name: option that sets the number of processes.
        workers: value of that option.
        here: number of GPUs of this machine.

    Raises:
        ValueError: this machine has fewer and no cluster runs, so the run would wait for ever.
    """
    wanted = gpus * workers
    if wanted > here and not ray.is_initialized() and _cluster() is None:
        raise ValueError(
            f"{gpus_name}: {workers} {workers_name} need {wanted:g} GPUs, this machine has {here}; "
            f"lower {gpus_name} or {workers_name}, or set RAY_ADDRESS to a cluster"
        )


RESTARTS = 4
"""How often an actor of a pipeline is restarted, and how many in a row may die while they start."""


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
    """A pause between the steps of Ray Data's loop.

    The loop waits only while no task has output to read. When a pipeline is ahead of its consumer, all tasks have, and
    without a pause the loop would take a whole core, and the interpreter's lock from other threads.
    """

    def on_execution_step(self, executor: Any) -> None:
        """Called by Ray Data after each step."""
        if _stop.wait(_PAUSE_S):
            raise RuntimeError("stopped")


@contextmanager
def _signals_held() -> Iterator[None]:
    """Delivers SIGTERM and SIGINT after the block: a Ray that is half started could not be ended in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:
            signal.signal(number, lambda number, _: held.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


@contextmanager
def _last_words() -> Iterator[None]:
    """Has a line printed if this process ends within the block, as Ray's native code ends it: without a word.

    A raylet that dies in the second in which this process registers with it has that effect.
    """
    text = f"error: this process ended while it was connecting to Ray; {_KEPT}"
    witness = subprocess.Popen(  # noqa: S603
        ["/bin/sh", "-c", 'read -r _ || echo "$0" >&2', text], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        witness.communicate(b"\n")


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hides what native code writes to stderr."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class RayDiedError(RuntimeError):
    """Ray died; calls of it may hang, or end this process without a word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        _died.set()


@contextmanager
def waiting_for_ray() -> Iterator[None]:
    """Notes that a thread of this process waits for Ray while the block runs; nothing can end the wait."""
    _waiting.add(threading.current_thread())
    try:
        yield
    finally:
        _waiting.discard(threading.current_thread())


def can_end() -> bool:
    """Returns whether Ray's own end, at the end of Python, works.

    It would wait a minute for a Ray that died; and a thread that still waits for Ray would end the process with exit
    code 1, or not, as it happens.
    """
    return not _died.is_set() and not _waiting


def check_ray() -> None:
    """Raises if a process that Ray cannot do without has died, here or, for a cluster, at its head.

    Raises:
        RayDiedError: names the process.
    """
    node = _node()
    if node is None:
        return
    for name, process in node.dead_processes():
        if name in ("gcs_server", "raylet"):
            raise RayDiedError(f"Ray died here ({name}, exit code {process.poll()}); {_KEPT}")
    if node.all_processes:
        return
    for name, address in (("gcs_server", node.gcs_address), ("raylet", node.raylet_socket_name)):
        if _is_away(address):
            raise RayDiedError(f"Ray died ({name} at {address} does not answer); {_KEPT}")


def _is_away(address: str) -> bool:
    """Returns whether nothing has been listening at an address for some time."""
    now = time.monotonic()
    if _is_listening(address):
        _silent.pop(address, None)
        return False
    since, last = _silent.get(address, (now, now))
    if now - last >= _GONE_S:  # nobody has looked meanwhile
        since = now
    _silent[address] = since, now
    return now - since >= _GONE_S


def _is_listening(address: str) -> bool:
    """Returns whether a process listens at HOST:PORT, or at the path of a Unix socket."""
    try:
        if address.startswith("/"):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(_PROBE_S)
                probe.connect(address)
        else:
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), _PROBE_S).close()
    except (OSError, ValueError):  # also of a name that is none
        return False
    return True


def answers(calls: list[Any], timeout: float) -> list[Any]:
    """Returns the results of calls, as `ray.get` does, unless Ray dies meanwhile; raises as `check_ray`."""
    deadline = time.monotonic() + timeout
    while True:
        check_ray()
        left = deadline - time.monotonic()
        done, _ = ray.wait(calls, num_returns=len(calls), timeout=min(max(left, 0.0), 0.5))
        if len(done) == len(calls) or left <= 0:
            results: list[Any] = ray.get(calls, timeout=0)
            return results


def _told(ask: Callable[[], _T]) -> _T:
    """Returns what Ray's GCS says, unless Ray dies meanwhile, which the call itself would not notice: see `_GONE_S`."""
    answer = Future[_T]()

    def call() -> None:
        with waiting_for_ray():
            try:
                answer.set_result(ask())
            except Exception as error:
                answer.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    while not answer.done():
        wait([answer], timeout=0.5)
        check_ray()
    return answer.result()


def is_loss(error: BaseException | None) -> bool:
    """Returns whether Ray lost a process, a machine or an object, as opposed to an error that code raised."""
    while error:
        if isinstance(error, _LOSSES) or _LOSS_IN_TEXT.search(str(error)):  # a task's error holds its causes as text
            return True
        error = error.__cause__
    return False


def reason(error: BaseException | None) -> str:
    """Returns the cause of an error of Ray: the first error in the traceback that is its text."""
    lines = re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    return (named or lines or [repr(error)])[0]
