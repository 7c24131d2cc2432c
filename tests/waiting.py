"""Waiting for what another process does."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], failure: str = "", within_s: float = 300) -> None:
    """Fails, saying so, if it does not become true; the time allows for a very busy machine."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, failure
        time.sleep(0.02)
