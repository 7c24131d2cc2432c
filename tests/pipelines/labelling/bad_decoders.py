"""Work of decoders that goes wrong. A decoder's child process imports this, so it imports nothing heavy."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any


def killed(*_: object) -> Iterator[None]:
    """Ends its process as a machine without memory does."""
    os.kill(os.getpid(), signal.SIGKILL)
    yield None


def hang() -> Iterator[Any]:
    """Stands still."""
    time.sleep(600)
    yield None
