"""How many model actors there are while something runs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ray._private.state import actors


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
