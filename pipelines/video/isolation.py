"""Runs decoders in child processes with limits: a video that crashes, hangs or bloats its decoder fails alone.

Native code opens untrusted files. Inside a Ray worker, its crash would take down every video of that worker. A child
has no credentials in its environment, gains no rights, writes no files, has no network where the system permits that,
and its messages are not pickles.
"""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TypeVar

from pipelines.video import messages
from pipelines.video.heartbeat import on_beat
from pipelines.video.options import Limits
from pipelines.video.plan import MachineError, VideoError

T = TypeVar("T")

_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that no file makes a decoder raise."""

_KEPT = frozenset({"HOME", "LANG", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "PATH", "PYTHONDONTWRITEBYTECODE", "TMPDIR"})

_PR_SET_NO_NEW_PRIVS, _CLONE_NEWUSER, _CLONE_NEWNET = 38, 0x10000000, 0x40000000  # of Linux

_NO_MESSAGE = "its decoder sent an invalid message"

_DEATH_S = 10.0  # from the end of its messages to its own

_START_S = 60.0  # for Python and the libraries to load on a busy machine


class IsolatedProcess:
    """A child process that runs generators, one after the other.

    Args:
        limits: limits of each generator.

    Raises:
        MachineError: if the process does not start.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.free = True
        self._connection, child_end = Pipe()
        with child_end:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "pipelines.video.isolation", str(child_end.fileno()), str(limits.memory_bytes)],
                pass_fds=[child_end.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal reaches the parent only
                env=_environment(),
            )
        if not self._connection.poll(_START_S):
            self.kill()
            raise MachineError(f"its decoder did not start within {_START_S:g} s")

    def run(self, function: Callable[..., Iterator[T]], *arguments: object, kinds: Iterable[type] = ()) -> Iterator[T]:
        """Runs a generator in the child and yields its values.

        Args:
            function: the generator function, which is pickled.
            *arguments: its arguments, which are pickled.
            kinds: the dataclasses that its values are made of.

        Raises:
            VideoError: if the generator raises, exceeds a limit, crashes the process, or sends what is no message.
            MachineError: if the generator raises one, or something else has killed the process.
        """
        self.free = False
        names = {kind.__name__: kind for kind in kinds}
        try:
            messages.receive(self._connection, {})  # "ready"
            self._connection.send((function, arguments))
            left = self.limits.total_s
            while True:
                since = time.monotonic()
                if not self._connection.poll(min(self.limits.silence_s, left)):
                    if left < self.limits.silence_s:
                        raise VideoError(f"its decoder took more than {self.limits.total_s:g} s")
                    raise VideoError(f"its decoder stood still for {self.limits.silence_s:g} s")
                left = max(0.0, left - (time.monotonic() - since))
                kind, value = messages.receive(self._connection, names)
                if kind == "alive":
                    continue
                if kind == "value":
                    yield value
                    continue
                self.free = True
                if kind == "error":
                    raise VideoError(value)
                if kind == "lost":
                    raise MachineError(value)
                return
        except VideoError:
            raise
        except ValueError:
            raise VideoError(_NO_MESSAGE) from None
        except (EOFError, OSError):  # the child is dead, or has sent too much
            raise self._obituary() from None

    def is_alive(self) -> bool:
        """Checks that the process is running."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kills the process, even in the middle of a generator."""
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def _obituary(self) -> VideoError | MachineError:
        try:
            code = self._process.wait(_DEATH_S)
        except subprocess.TimeoutExpired:  # it lives, but its messages are too long
            return VideoError(_NO_MESSAGE)
        if -code in _FROM_OUTSIDE:
            return MachineError(f"its decoder was killed ({signal.Signals(-code).name}), as where memory runs out")
        return VideoError(f"its decoder crashed ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})")


_idle: list[IsolatedProcess] = []
_lock = threading.Lock()  # of several threads, each borrows a process of its own


@contextmanager
def isolated(limits: Limits) -> Iterator[IsolatedProcess]:
    """Borrows a pooled process; kills it if it is abandoned in the middle of a generator."""
    with _lock:
        _idle[:] = [process for process in _idle if process.is_alive()]
        process = next((process for process in _idle if process.limits == limits), None)
        if process:
            _idle.remove(process)
    process = process or IsolatedProcess(limits)
    try:
        yield process
    finally:
        if process.free:
            with _lock:
                _idle.append(process)
        else:
            process.kill()


def _serve(connection: Connection) -> None:
    on_beat(lambda: messages.send(connection, ("alive", None)))
    while True:
        messages.send(connection, "ready")
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            for value in function(*arguments):
                messages.send(connection, ("value", value))
            answer = ("end", "")
        except VideoError as error:
            answer = ("error", str(error))
        except MachineError as error:
            answer = ("lost", str(error))
        except MemoryError:
            answer = ("error", f"needs more than {resource.getrlimit(resource.RLIMIT_DATA)[0] / 1e9:g} GB to decode")
        except Exception as error:  # one video's failure must not stop the others
            answer = ("error", f"decoding failed: {error!r}")
        messages.send(connection, answer)


def _environment() -> dict[str, str]:
    """Returns the variables that Python and FFmpeg need, without credentials."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith("LC_")}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}


def _limit_memory(limit: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _give_up_rights() -> None:
    """Gives up what decoding does not need, as far as the system lets this process: files, network, new rights."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        system = ctypes.CDLL(None)
        system.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if system.unshare(_CLONE_NEWNET):  # not privileged: in a namespace of its own it may
            system.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _exit_with(parent: int) -> None:
    """Ends this process when its parent is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    _limit_memory(int(sys.argv[2]))
    _give_up_rights()
    threading.Thread(target=_exit_with, args=(os.getppid(),), daemon=True).start()
    _serve(Connection(int(sys.argv[1])))
