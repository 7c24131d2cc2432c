"""Work in a process of its own, with limits: a video that crashes, hangs or bloats its decoder fails alone.

What opens files of strangers is native code. In a worker of the cluster its crash would be that of every video there.
"""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TypeVar

from pipelines.video.plan import VideoError

T = TypeVar("T")

_START_S = 60.0  # Python and the libraries, on a machine that is busy


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a video may ask for.

    Attributes:
        silence_s: time that its index, or its next batch of frames, may take, seconds.
        total_s: time for which its index, or a segment of it, may be waited for in all, seconds.
        memory_bytes: that its decoder may take, on Linux.
    """

    silence_s: float = 120.0
    total_s: float = 3600.0
    memory_bytes: int = 4 * 10**9


class IsolatedProcess:
    """A process that runs generators, one after the other.

    Args:
        limits: of each.

    Raises:
        RuntimeError: it does not start.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.free = True
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", "pipelines.video.isolation", str(theirs.fileno()), str(limits.memory_bytes)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's Ctrl-C is for whoever waits for this process
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"},
            )
        if not self._connection.poll(_START_S):
            self.kill()
            raise RuntimeError(f"a process for decoding did not start within {_START_S:g} s")

    def run(self, function: Callable[..., Iterator[T]], *arguments: object) -> Iterator[T]:
        """Yields what a generator yields over there; function, arguments and values are pickled.

        Raises:
            VideoError: the one that the generator raised; any other error of it; a limit or the process broke.
        """
        self.free = False
        try:
            self._connection.recv()  # it is ready
            self._connection.send((function, arguments))
            left = self.limits.total_s
            while True:
                since = time.monotonic()
                if not self._connection.poll(min(self.limits.silence_s, left)):
                    if left < self.limits.silence_s:
                        raise VideoError(f"its decoder took more than {self.limits.total_s:g} s")
                    raise VideoError(f"its decoder stood still for {self.limits.silence_s:g} s")
                left = max(0.0, left - (time.monotonic() - since))
                kind, value = self._connection.recv()
                if kind == "value":
                    yield value
                    continue
                self.free = True
                if kind == "error":
                    raise VideoError(value)
                return
        except (EOFError, OSError):  # the other end is gone
            raise VideoError(self._obituary()) from None

    def is_alive(self) -> bool:
        """Whether it can run anything."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def _obituary(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "its decoder was killed, as happens where memory runs out"
        return f"its decoder crashed ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"


_idle: list[IsolatedProcess] = []


@contextmanager
def isolated(limits: Limits) -> Iterator[IsolatedProcess]:
    """Lends a process and keeps it for who comes next; one that is left in the middle of a generator is ended."""
    _idle[:] = [each for each in _idle if each.is_alive()]
    process = next((each for each in _idle if each.limits == limits), None)
    if process:
        _idle.remove(process)
    else:
        process = IsolatedProcess(limits)
    try:
        yield process
    finally:
        if process.free:
            _idle.append(process)
        else:
            process.kill()


def _serve(connection: Connection) -> None:
    while True:
        connection.send("ready")
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            for value in function(*arguments):
                connection.send(("value", value))
            answer = ("end", "")
        except VideoError as error:
            answer = ("error", str(error))
        except MemoryError:
            answer = ("error", f"needs more than {resource.getrlimit(resource.RLIMIT_DATA)[0] / 1e9:g} GB to decode")
        except Exception as error:  # a failure of one video never stops the others
            answer = ("error", f"decoding failed: {error!r}")
        connection.send(answer)


def _limit_memory(limit: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _end_with(parent: int) -> None:
    """Ends this process when the one that made it is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    _limit_memory(int(sys.argv[2]))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _serve(Connection(int(sys.argv[1])))
