import threading
from dataclasses import replace

import pytest
import torch

from openvis_model.instances import Instances
from pipelines.benchmark.machine import Machine
from pipelines.benchmark.stages import Stage, Stages, best_batch_size, count_flops


def test_flops_by_hand() -> None:
    """A product of 3 × 4 and 4 × 5 numbers takes 60 multiplications and as many additions."""
    assert count_flops(lambda: torch.ones(3, 4) @ torch.ones(4, 5)) == 120


def test_the_floor_by_hand() -> None:
    """10 operations take 5 s, 12 bytes 4 s: the products are the floor, unless there are none."""
    machine = Machine(name="", cores=1, threads=1, matmul_flops=2.0, copy_bytes=3.0, load=0.0)
    assert Stage("", 10.0, flops=10.0, moved_bytes=12.0).floor_s(machine) == 5
    assert Stage("", 10.0, moved_bytes=12.0).floor_s(machine) == 4
    assert machine.at_best(replace(machine, matmul_flops=1.0, copy_bytes=4.0)) == replace(machine, copy_bytes=4.0)


class Timed(Stages):
    """A model whose batches take a given time per frame, or too much memory."""

    def __init__(self, taken: dict[int, float]) -> None:
        self.taken = taken

    def whole_model(self, batch_size: int) -> float:
        if batch_size not in self.taken:
            raise torch.OutOfMemoryError
        return self.taken[batch_size]


class Meeting(Stages):
    """A model whose calls wait for each other."""

    def __init__(self, calls: int) -> None:
        self.device, self.seconds = torch.device("cpu"), 0.0
        self.frames = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
        self.met = threading.Barrier(calls)
        self.threads = set[int]()

    def label(self, frames: torch.Tensor) -> list[Instances]:
        self.met.wait(10)
        self.threads.add(torch.get_num_threads())
        return []


@pytest.mark.parametrize(("threads", "calls", "each"), [(1, 1, 1), (2, 2, 1), (4, 2, 2)])
def test_the_whole_model_is_measured_as_labelling_runs_it(threads: int, calls: int, each: int) -> None:
    own = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        stages = Meeting(calls)
        assert stages.whole_model(3) > 0
        assert stages.threads == {each}
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(own)


def test_the_smallest_batch_that_is_as_fast_is_chosen() -> None:
    taken = {1: 2.0, 2: 1.01, 4: 1.0, 8: 1.5}
    assert best_batch_size(Timed(taken), (1, 2, 4, 8)) == (2, taken)


def test_batches_that_do_not_fit_end_the_trials() -> None:
    assert best_batch_size(Timed({1: 2.0, 2: 1.0}), (1, 2, 4, 8)) == (2, {1: 2.0, 2: 1.0})
    with pytest.raises(RuntimeError, match="memory is full with a batch of 8; give a smaller batch_size"):
        best_batch_size(Timed({}), (8, 16))
