"""Repeats passes over the wanted items until each is done, or has proved impossible.

An item that a pass loses with a process or a machine is simply still wanted. Which item killed a process is found by
halving; an item that a machine has failed to read is known, and is repeated together with all others.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

PAUSE_S = 20.0
"""Wait after a pass in which machines have failed to read every item: what ails them may pass."""

_IN_FLIGHT = 16
"""Items probably in flight when a pass of few broke (of many, a fifth): maybe the cause, so they are retried last."""

_HOPELESS = 10
"""After this many losses in a row or in a pass without any success, the items are not the cause."""


class PassBrokenError(RuntimeError):
    """A pass broke because Ray lost a process, a machine or an object; another pass may succeed."""


def reconcile(
    wanted: Sequence[T],
    run: Callable[[Sequence[T]], Mapping[T, str]],
    left: Callable[[Sequence[T]], Sequence[T]],
    *,
    attempts: int,
    proven: bool = False,
) -> Iterator[tuple[T, str]]:
    """Runs passes while they get something done; halves one that does not, down to single items.

    Args:
        wanted: the items to do.
        run: executes a pass, and returns the items that a machine has failed to read, with the reasons; may raise
            `PassBrokenError`. Any other error ends everything.
        left: returns those of the given items that are not done.
        attempts: passes that a single item gets, and failures to read it, at least 1.
        proven: whether any item was ever done, so that passes are known to work.

    Yields:
        The items that were lost in each of their own passes, or that could not be read as often, with the reason; as
        soon as a later pass has got something done, so that they are to blame, or at the end.

    Raises:
        PassBrokenError: no item was ever done, or too many were lost in a row: the cause lies elsewhere.
    """
    lost: list[tuple[T, str]] = []  # since something was done
    groups, in_a_row = [(list(wanted), 0)], 0  # with the number of passes that got nothing done
    failures: Counter[T] = Counter()
    while groups:
        group, tries = groups.pop()
        if not group:
            continue
        unread, reason = _try(run, group)
        rest = list(left(group))
        progress = len(rest) < len(group)
        if progress:
            proven, tries, in_a_row = True, 0, 0
            yield from lost
            lost = []
        if unread:
            everywhere = not progress and len(unread) >= _HOPELESS
            tries += not progress
            if tries >= attempts and (everywhere or not proven):
                raise PassBrokenError(reason)
            if not everywhere:
                failures.update(unread.keys())
            lost += [(item, unread[item]) for item in rest if item in unread and failures[item] >= attempts]
            rest = [item for item in rest if item not in unread or failures[item] < attempts]
            if rest and not progress:
                time.sleep(PAUSE_S)
        if progress or unread:
            suspects = max(_IN_FLIGHT, len(rest) // 5)
            groups.append(([*rest[suspects:], *rest[:suspects]], tries))
        elif len(group) > 1:
            half = len(group) // 2
            groups += [(group[half:], 0), (group[:half], 0)]
        elif tries + 1 < attempts:
            groups.append((group, tries + 1))
        else:
            lost.append((group[0], reason))
            in_a_row += 1
            if in_a_row == _HOPELESS or not (groups or proven):
                raise PassBrokenError(reason)
    yield from lost


def _try(run: Callable[[Sequence[T]], Mapping[T, str]], wanted: Sequence[T]) -> tuple[Mapping[T, str], str]:
    """Returns what could not be read, and why items may be lost."""
    try:
        unread = run(wanted)
    except PassBrokenError as error:
        return {}, str(error)
    return unread, next(iter(unread.values()), "the process that had it was lost")
