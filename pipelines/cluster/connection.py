"""Joins a running cluster, or starts Ray on this machine."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager

import ray
from ray._private import ray_constants, services
from ray.exceptions import AuthenticationError, RaySystemError

from pipelines.cluster.liveness import KEPT, Watch, check_ray, waiting_for_ray

_JOIN_S = 180.0  # a busy head takes some seconds

KEEP_WORKERS = {"idle_worker_killing_time_threshold_ms": 60_000}
"""A setting of Ray, which by default ends idle workers after a second; each start of another takes a second of CPU."""


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
    cluster = running_cluster()
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
    watch = Watch(cluster) if cluster else None
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
        if watch and (watch.is_away() or time.monotonic() > deadline):
            raise ConnectionError(watch.address)
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


def running_cluster() -> str | None:
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
    text = f"error: this process ended while it was connecting to Ray; {KEPT}"
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
