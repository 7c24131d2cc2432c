"""Outages: what a run does while the storage of its output does not answer."""

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

STALL_S = 1800.0
"""Default of every job's `stall_s`."""

_PAUSE_S = 1.0
_RETRIES_S = 600.0  # a request to a server that is away fails sooner, with all its retries

T = TypeVar("T")


def is_away(error: BaseException | None) -> bool:
    """Returns whether an error says that the storage does not answer, which may pass."""
    return isinstance(error, OSError) and error.errno == errno.EHOSTUNREACH


def outlast(work: Callable[[], T], stall_s: float) -> T:
    """Returns the result of work on a storage; does the work again while the storage is away.

    Args:
        work: can be done again after it broke off.
        stall_s: how long the storage may be away, counted from the first error, or the first one after work that
            went on for longer than a request's retries, seconds.

    Raises:
        OSError: the storage is still away, or refuses.
    """
    since: float | None = None
    while True:
        begun = time.monotonic()
        try:
            return work()
        except OSError as error:
            now = time.monotonic()
            if since is None or now - begun > _RETRIES_S:
                since = now
            if not is_away(error) or now - since >= stall_s:
                raise
        time.sleep(_PAUSE_S)


@contextmanager
def left_while_away() -> Iterator[None]:
    """Leaves the block's work to the next time if the storage is away."""
    try:
        yield
    except OSError as error:
        if not is_away(error):
            raise
