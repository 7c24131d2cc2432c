import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from pipelines.training.sample_batches import Share, batches


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.shutdown()  # the shared one: these tests count CPUs
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def open_squares(delay_s: float = 0.0) -> Callable[[int], tuple[int, int, int, bool]]:
    """Samples are their number, its square, who made them, and whether that one knows torch."""

    def sample(number: int) -> tuple[int, int, int, bool]:
        time.sleep(delay_s * (number % 3 == 0))
        return number, number * number, os.getpid(), "torch" in sys.modules

    return sample


def open_with_bad(bad: int) -> Callable[[int], int]:
    def sample(number: int) -> int:
        if number == bad:
            raise ValueError(f"a.json: video 3, b.mp4: sample {number} is broken")
        return number

    return sample


def open_mortal(marker: Path) -> Callable[[int], int]:
    """Its process dies at sample 9, once."""

    def sample(number: int) -> int:
        if number == 9 and not marker.exists():
            marker.touch()
            os._exit(1)
        return number

    return sample


def open_counting(counter: Any) -> Callable[[int], bytes]:
    def sample(number: int) -> bytes:
        ray.get(counter.add.remote())
        return bytes(2**20)

    return sample


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> None:
        self.count += 1

    def total(self) -> int:
        return self.count


def wait_for_cpus(count: int) -> None:
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU", 0) < count:
        assert time.monotonic() < deadline, "actors are left"
        time.sleep(0.1)


def numbers(share: Share, decoders: int = 2) -> list[list[int]]:
    its = [[sample[0] for sample in batch] for batch in batches(open_squares, share, decoders=decoders)]
    wait_for_cpus(2)
    return its


def test_steps_are_in_order_whoever_is_slow() -> None:
    share = Share(first_step=0, last_step=30, batch_size=4)
    found = list(batches(partial(open_squares, 0.02), share, decoders=2))
    assert [[(number, square) for number, square, _, _ in batch] for batch in found] == [
        [(number, number**2) for number in range(4 * step, 4 * step + 4)] for step in range(30)
    ]
    samples = [sample for batch in found for sample in batch]
    assert len({pid for _, _, pid, _ in samples}) == 2
    assert os.getpid() not in {pid for _, _, pid, _ in samples}
    assert not any(knows_torch for _, _, _, knows_torch in samples)
    wait_for_cpus(2)


def test_restarts_and_workers_see_the_same_samples() -> None:
    whole = numbers(Share(first_step=0, last_step=7, batch_size=4))
    assert numbers(Share(first_step=5, last_step=7, batch_size=4), decoders=1) == whole[5:]
    parts = [numbers(Share(first_step=0, last_step=7, batch_size=4, rank=rank, world_size=2), 1) for rank in (0, 1)]
    assert [first + second for first, second in zip(*parts, strict=True)] == whole
    assert numbers(Share(first_step=7, last_step=7, batch_size=4)) == []


def test_many_steps_are_planned_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.training.sample_batches._TASKS", 5)
    share = Share(first_step=3, last_step=36, batch_size=2)  # 33 steps, 7 a task
    assert numbers(share) == [[2 * step, 2 * step + 1] for step in range(3, 36)]


def test_an_error_comes_at_its_step_and_ends_everything() -> None:
    its = batches(partial(open_with_bad, 9), Share(first_step=0, last_step=1000, batch_size=2), decoders=1)
    seen = []
    with pytest.raises(ValueError, match="^a.json: video 3, b.mp4: sample 9 is broken$"):
        seen.extend(its)
    assert seen == [[0, 1], [2, 3], [4, 5], [6, 7]]
    wait_for_cpus(2)


def test_a_process_that_dies_is_replaced(tmp_path: Path) -> None:
    its = batches(partial(open_mortal, tmp_path / "died"), Share(first_step=0, last_step=8, batch_size=2), decoders=1)
    assert [number for batch in its for number in batch] == list(range(16))
    assert (tmp_path / "died").exists()
    wait_for_cpus(2)


def test_little_is_made_before_it_is_needed_and_closing_ends_the_actors() -> None:
    counter = ray.remote(num_cpus=0)(Counter).remote()
    share = Share(first_step=0, last_step=500, batch_size=1)
    its: Any = batches(partial(open_counting, counter), share, decoders=1, ahead_bytes=4 * 2**20)
    for _ in range(20):
        next(its)
    time.sleep(1)
    assert 20 <= ray.get(counter.total.remote()) < 40
    its.close()
    assert "iter_threaded" not in [thread.name for thread in threading.enumerate()]
    wait_for_cpus(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first_step": 5}, "first_step, last_step: expected 0 <= first <= last, got 5 and 4"),
        ({"first_step": -1}, "first_step, last_step: .* got -1 and 4"),
        ({"rank": 2, "world_size": 2}, r"rank: expected 0 to 1 \(world_size - 1\), got 2"),
        ({"rank": -1}, "rank: expected 0 to 0"),
        ({"batch_size": 3, "world_size": 2}, r"batch_size: expected a multiple of world_size \(2\), got 3"),
        ({"batch_size": 0}, "batch_size: .* got 0"),
    ],
)
def test_shares_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Share(**{"first_step": 0, "last_step": 4, "batch_size": 2, **change})


def test_decoders_that_would_wait_for_ever() -> None:
    share = Share(first_step=0, last_step=4, batch_size=2, world_size=2)
    with pytest.raises(ValueError, match="decoders: 2 for each of 2 workers, but the cluster has 2 CPUs; lower"):
        batches(open_squares, share, decoders=2)
    with pytest.raises(ValueError, match="decoders: expected at least 1, got 0"):
        batches(open_squares, share, decoders=0)


def test_a_pipeline_that_is_ahead_leaves_the_process_to_training() -> None:
    """CPU time of this process while it waits with a full buffer: Ray Data's loop alone would take most of it."""
    found = batches(
        open_squares, Share(first_step=0, last_step=3000, batch_size=1, rank=0, world_size=1), decoders=1, ahead_bytes=1
    )
    for _ in range(20):
        next(found)
    before = time.process_time(), time.monotonic()
    time.sleep(2)
    spent, passed = time.process_time() - before[0], time.monotonic() - before[1]
    found.close()
    assert spent < 0.5 * passed
