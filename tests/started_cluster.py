"""A cluster that `ray start` started on this machine, for drivers that join it."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.waiting import wait_until


class StartedCluster:
    """Its machine.

    Attributes:
        environment: of a process that joins the cluster, as Ray finds it where nothing sets RAY_ADDRESS.
        address: what RAY_ADDRESS may be set to.
    """

    def __init__(self, folder: Path) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.environment = clean | token | {"RAY_TMPDIR": str(folder)}
        ray = str(Path(sys.executable).with_name("ray"))
        options = ["--head", "--num-cpus", "3", "--port", "0", "--block", "--include-dashboard=false"]
        nowhere = subprocess.DEVNULL
        self.head = subprocess.Popen([ray, "start", *options], env=self.environment, stdout=nowhere, stderr=nowhere)
        current = folder / "ray/ray_current_cluster"
        wait_until(current.exists)
        self.address = current.read_text().strip()

    def kill(self, name: str) -> None:
        """Kills a process of Ray without warning; `ray start` ends the others then."""
        self._process(name).kill()

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """Stops a process of Ray for the length of the block."""
        process = self._process(name)
        process.suspend()
        yield
        process.resume()

    def _process(self, name: str) -> psutil.Process:
        processes = psutil.Process(self.head.pid).children(recursive=True)
        (process,) = [process for process in processes if process.name() == name]
        return process

    def end(self) -> None:
        self.head.terminate()
        self.head.wait(60)


@contextmanager
def started_cluster() -> Iterator[StartedCluster]:
    """Starts a cluster with 3 CPUs and ends it with the block."""
    folder = Path(tempfile.mkdtemp(prefix="ov-"))  # Ray's sockets need a short path
    cluster = StartedCluster(folder)
    try:
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(folder, ignore_errors=True)
