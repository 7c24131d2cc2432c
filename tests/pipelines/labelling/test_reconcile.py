from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pytest

from pipelines.labelling import reconcile as module
from pipelines.labelling.reconcile import PassBrokenError


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits so far."""
    waits: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    return waits


def reconcile(*arguments: Any, **options: Any) -> list[tuple[int, str]]:
    return list(module.reconcile(*arguments, **options))


class World:
    """Passes do numbers.

    Attributes:
        poison: numbers that break a pass.
        lost: numbers that are skipped.
        deadly: how many passes break at once.
        unread: how often each number will be unread.
    """

    def __init__(
        self,
        poison: Collection[int] = (),
        lost: Collection[int] = (),
        deadly: int = 0,
        unread: Mapping[int, int] | None = None,
    ) -> None:
        self.poison, self.lost, self.deadly = poison, lost, deadly
        self.unread = Counter(unread or {})
        self.done: set[int] = set()
        self.passes: list[list[int]] = []

    def run(self, wanted: Sequence[int]) -> dict[int, str]:
        self.passes.append(list(wanted))
        unread = {number: "no disk" for number in wanted if self.unread[number]}
        self.unread.subtract(unread.keys())
        if len(self.passes) <= self.deadly:
            raise PassBrokenError("no machine")
        for number in wanted:
            if number in self.poison:
                raise PassBrokenError(f"{number} is poison")
            if number not in self.lost and number not in unread:
                self.done.add(number)
        return unread

    def left(self, wanted: Sequence[int]) -> list[int]:
        return [number for number in wanted if number not in self.done]


def test_one_pass_is_enough_when_nothing_is_lost() -> None:
    world = World()
    assert reconcile(range(5), world.run, world.left, attempts=3) == []
    assert world.passes == [[0, 1, 2, 3, 4]]


def test_items_that_break_passes_are_isolated_and_all_others_are_done() -> None:
    world = World(poison={20, 70})
    lost = reconcile(range(100), world.run, world.left, attempts=3)
    assert sorted(lost) == [(20, "20 is poison"), (70, "70 is poison")]
    assert world.done == set(range(100)) - {20, 70}
    assert [len(items) for items in world.passes[:3]] == [100, 80, 46]  # suspects come last
    assert world.passes.count([20]) == world.passes.count([70]) == 3
    assert len(world.passes) < 30


def test_an_item_that_every_pass_loses_is_reported() -> None:
    world = World(lost={3})
    assert reconcile(range(5), world.run, world.left, attempts=2) == [(3, "the process that had it was lost")]
    assert world.passes == [[0, 1, 2, 3, 4], [3], [3]]


def test_passes_that_break_for_a_while_do_no_harm() -> None:
    world = World(deadly=2)
    assert reconcile(range(5), world.run, world.left, attempts=3) == []
    assert world.passes == [[0, 1, 2, 3, 4], [0, 1], [0], [1], [2, 3, 4]]


@pytest.mark.parametrize(("proven", "count"), [(False, 3), (False, 50), (True, 50)])
def test_no_item_is_blamed_when_nothing_works(proven: bool, count: int) -> None:
    world = World(deadly=10**6)
    with pytest.raises(PassBrokenError, match="^no machine$"):
        reconcile(range(count), world.run, world.left, attempts=2, proven=proven)
    assert sum(len(items) == 1 for items in world.passes) == 2 * min(count, 10)


def test_an_item_that_never_works_is_reported_when_others_did() -> None:
    world = World(poison={0})
    assert reconcile([0], world.run, world.left, attempts=2, proven=True) == [(0, "0 is poison")]


def test_other_errors_end_everything() -> None:
    def run(wanted: Sequence[int]) -> dict[int, str]:
        raise ValueError("unforeseen")

    left: Callable[[Sequence[int]], Sequence[int]] = lambda wanted: wanted  # noqa: E731
    with pytest.raises(ValueError, match="unforeseen"):
        reconcile([1], run, left, attempts=2)


def test_what_a_machine_failed_to_read_is_read_in_one_more_pass() -> None:
    world = World(unread=dict.fromkeys(range(30), 1))
    assert reconcile(range(100), world.run, world.left, attempts=3) == []
    assert [len(items) for items in world.passes] == [100, 30]


def test_what_no_machine_can_read_is_reported_and_others_are_not_halved() -> None:
    world = World(unread={3: 99, 70: 99, 71: 2})
    assert sorted(reconcile(range(100), world.run, world.left, attempts=3)) == [(3, "no disk"), (70, "no disk")]
    assert [len(items) for items in world.passes] == [100, 3, 3]


@pytest.mark.parametrize("proven", [False, True])
def test_an_outage_blames_no_item(proven: bool, pauses: list[float]) -> None:
    """Not even those that could not be read before it began."""
    world = World(unread=dict.fromkeys(range(50), 10**6))
    with pytest.raises(PassBrokenError, match="^no disk$"):
        reconcile(range(60) if proven else range(50), world.run, world.left, attempts=3)
    assert [len(items) for items in world.passes] == ([60] if proven else []) + [50] * 3
    assert pauses == [module.PAUSE_S] * 2


def test_an_outage_that_ends_harms_nothing() -> None:
    world = World(unread=dict.fromkeys(range(50), 2))
    assert reconcile(range(50), world.run, world.left, attempts=3) == []


def test_a_single_item_that_cannot_be_read_is_no_proof_of_a_bad_item() -> None:
    world = World(unread={0: 99})
    with pytest.raises(PassBrokenError, match="^no disk$"):
        reconcile([0], world.run, world.left, attempts=2)


def test_what_one_item_did_is_not_held_against_the_next() -> None:
    world = World(deadly=1, unread={0: 4})
    run = world.run

    def break_once(wanted: Sequence[int]) -> dict[int, str]:
        if wanted == [1] and world.passes.count([1]) == 0:
            world.passes.append([1])
            raise PassBrokenError("no machine")
        return run(wanted)

    assert reconcile(range(2), break_once, world.left, attempts=3, proven=True) == [(0, "no disk")]
    assert world.passes == [[0, 1], *[[0]] * 3, [1], [1]]


def test_an_outage_after_an_item_was_given_up_ends_the_run() -> None:
    world = World(deadly=1, unread=dict.fromkeys(range(19), 10**6))
    with pytest.raises(PassBrokenError, match="^no disk$"):
        reconcile(range(19), world.run, world.left, attempts=3, proven=True)
    assert [len(items) for items in world.passes] == [19, 9, 9, 9, 10, 10, 10]


def test_what_is_given_up_is_known_as_soon_as_something_else_is_done() -> None:
    """Whatever ends the run later."""
    world = World(poison={0})

    def interrupted(wanted: Sequence[int]) -> dict[int, str]:
        if 5 in world.done:
            raise KeyboardInterrupt
        world.run(wanted)
        return {}

    world.lost = {9}
    known: list[tuple[int, str]] = []
    with pytest.raises(KeyboardInterrupt):
        known.extend(module.reconcile(range(10), interrupted, world.left, attempts=2))
    assert known == [(0, "0 is poison")]
