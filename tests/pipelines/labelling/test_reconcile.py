from collections.abc import Callable, Sequence

import pytest

from pipelines.labelling.reconcile import PassBrokenError, reconcile


class World:
    """Passes do numbers; `poison` breaks a pass, `lost` is skipped, and the first `deadly` passes break at once."""

    def __init__(self, poison: set[int] = frozenset(), lost: set[int] = frozenset(), deadly: int = 0) -> None:  # type: ignore[assignment]
        self.poison, self.lost, self.deadly = poison, lost, deadly
        self.done: set[int] = set()
        self.passes: list[list[int]] = []

    def run(self, wanted: Sequence[int]) -> None:
        self.passes.append(list(wanted))
        if len(self.passes) <= self.deadly:
            raise PassBrokenError("no machine")
        for number in wanted:
            if number in self.poison:
                raise PassBrokenError(f"{number} is poison")
            if number not in self.lost:
                self.done.add(number)

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
    def run(wanted: Sequence[int]) -> None:
        raise ValueError("unforeseen")

    left: Callable[[Sequence[int]], Sequence[int]] = lambda wanted: wanted  # noqa: E731
    with pytest.raises(ValueError, match="unforeseen"):
        reconcile([1], run, left, attempts=2)
