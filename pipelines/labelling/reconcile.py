"""Passes over what is wanted, until all of it is done or known not to work.

Whatever a pass loses with a process or a machine is simply still wanted.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

_IN_WORK = 16
"""The first ones of what a pass leaves, about as many as were in work when it broke off: maybe one of them broke it."""

_HOPELESS = 10
"""So many that are lost one after the other are not to blame themselves."""


class PassBrokenError(RuntimeError):
    """A pass broke off, since a process, a machine or what it held was lost; another pass may do better."""


def reconcile(
    wanted: Sequence[T],
    run: Callable[[Sequence[T]], None],
    left: Callable[[Sequence[T]], Sequence[T]],
    *,
    attempts: int,
    proven: bool = False,
) -> list[tuple[T, str]]:
    """Runs passes as long as they get anything done; a pass that does not is halved, down to single ones.

    Args:
        wanted: what is to be done.
        run: a pass; may raise `PassBrokenError`. Any other error ends everything.
        left: what of it is not done.
        attempts: passes that a single one gets, at least 1.
        proven: whether anything was ever done; that what runs works at all.

    Returns:
        What was lost each time, also on its own, and why.

    Raises:
        PassBrokenError: nothing was ever done, or too many in a row were lost on their own: so the fault is not theirs.
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
            groups.append([*rest[_IN_WORK:], *rest[:_IN_WORK]])  # others first
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
