"""Pools of model actors: how many there are while something runs, and actors that wait for others."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from ray._private.state import actors

from tests.waiting import wait_until


@contextmanager
def model_actors() -> Iterator[list[int]]:
    """Lists the numbers of living model actors, one after the other, while the block runs."""
    sizes, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            alive = [each for each in actors().values() if each["State"] == "ALIVE"]
            size = sum("MapWorker" in each["ActorClassName"] for each in alive)
            if size != sizes[-1]:
                sizes.append(size)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield sizes
    finally:
        over.set()
        thread.join()


def note_actor(folder: Path) -> None:
    """Leaves the process id of the actor that calls this in the folder."""
    folder.mkdir(exist_ok=True)
    (folder / str(os.getpid())).touch()


def wait_for_pool(folder: Path, size: int) -> None:
    """Waits until as many actors have called this."""
    note_actor(folder)
    wait_until(lambda: len(list(folder.iterdir())) >= size)


def wait_until_alone(folder: Path) -> None:
    """Waits until no more than one of the actors is left that have called `wait_for_pool`."""
    wait_until(lambda: sum(psutil.pid_exists(int(file.name)) for file in folder.iterdir()) <= 1)
