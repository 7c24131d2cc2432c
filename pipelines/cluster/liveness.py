"""Whether Ray is alive: calls of a Ray that died hang, or end this process without a word."""

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray._private import worker

KEPT = "what is committed is kept, run it again"

_GONE_S = 20.0  # a GCS may come back; a minute after it is lost, Ray ends this process without a word
_PROBE_S = 2.0

_T = TypeVar("_T")

_died = threading.Event()
_waiting = set[threading.Thread]()


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


def local_node() -> Any:
    """Returns Ray's record of this process's node; None outside of Ray."""
    return worker._global_node


class Watch:
    """Watches an address: HOST:PORT, or the path of a Unix socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._since = self._last = -math.inf  # since when it does not answer, and when that was last seen

    def is_away(self) -> bool:
        """Returns whether nothing has been listening for some time."""
        now = time.monotonic()
        if _is_listening(self.address):
            self._last = -math.inf
            return False
        if now - self._last >= _GONE_S:  # nobody has looked meanwhile
            self._since = now
        self._last = now
        return now - self._since >= _GONE_S


_watches = dict[str, Watch]()


def check_ray() -> None:
    """Raises if a process that Ray cannot do without has died, here or, for a cluster, at its head.

    Raises:
        RayDiedError: names the process.
    """
    node = local_node()
    if node is None:
        return
    for name, process in node.dead_processes():
        if name in ("gcs_server", "raylet"):
            raise RayDiedError(f"Ray died here ({name}, exit code {process.poll()}); {KEPT}")
    if node.all_processes:
        return
    for name, address in (("gcs_server", node.gcs_address), ("raylet", node.raylet_socket_name)):
        if _watches.setdefault(address, Watch(address)).is_away():
            raise RayDiedError(f"Ray died ({name} at {address} does not answer); {KEPT}")


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


def told(ask: Callable[[], _T]) -> _T:
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
