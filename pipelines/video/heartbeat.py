"""Signs of life of a decoder that has not yet produced a value."""

import time
from collections.abc import Callable

_EVERY_S = 1.0

_listeners: list[Callable[[], None]] = []
_last = 0.0


def on_beat(listener: Callable[[], None]) -> None:
    """Has `listener` called from now on, about once a second while this process works on a video."""
    _listeners.append(listener)


def beat() -> None:
    """Called for each packet or frame that was worked on."""
    global _last
    if (now := time.monotonic()) - _last >= _EVERY_S:
        _last = now
        for listener in _listeners:
            listener()
