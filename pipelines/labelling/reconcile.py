"""Repeats passes over the wanted items until each is done, or has proved impossible.

An item that a pass loses with a process or a machine is simply still wanted.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

_IN_FLIGHT = 16
"""Items probably in flight when a pass broke; one of them may be the cause, so they are retried last."""

_HOPELESS = 10
"""After this many consecutive losses, the items are not the cause."""


class PassBrokenError(RuntimeError):
    """A pass broke because Ray lost a process, a machine or an object; another pass may succeed."""


def reconcile(
    wanted: Sequence[T],
    run: Callable[[Sequence[T]], None],
    left: Callable[[Sequence[T]], Sequence[T]],
    *,
    attempts: int,
    proven: bool = False,
) -> list[tuple[T, str]]:
    """Runs passes while they get something done; halves one that does not, down to single items.

    Args:
        wanted: the items to do.
        run: executes a pass; may raise `PassBrokenError`. Any other error ends everything.
        left: returns those of the given items that are not done.
        attempts: passes that a single item gets, at least 1.
        proven: whether any item was ever done, so that passes are known to work.

    Returns:
        The items that were lost in each of their own passes, with the reason.

    Raises:
        PassBrokenError: no item was ever done, or too many were lost in a row: the cause lies elsewhere.
    """
    lost: list[tuple[T, str]] = []
    groups, tries, in_a_row = [list(wanted)], 0, 0
    while groups:
        group = groups.pop()
        if not group:
            continue
        reason = _try(run, group)
        rest = left(group)
        if len(rest) < len(group):
            proven, tries, in_a_row = True, 0, 0
            groups.append([*rest[_IN_FLIGHT:], *rest[:_IN_FLIGHT]])
        elif len(group) > 1:
            half = len(group) // 2
            groups += [group[half:], group[:half]]
        elif (tries := tries + 1) < attempts:
            groups.append(group)
        else:
            lost.append((group[0], reason))
            tries, in_a_row = 0, in_a_row + 1
            if in_a_row == _HOPELESS or not (groups or proven):
                raise PassBrokenError(reason)
    return lost


def _try(run: Callable[[Sequence[T]], None], wanted: Sequence[T]) -> str:
    try:
        run(wanted)
    except PassBrokenError as error:
        return str(error)
    return "the process that had it was lost"
