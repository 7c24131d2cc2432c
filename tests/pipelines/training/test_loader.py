import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from pipelines.training.loader import _Steps, batches
from pipelines.training.share import Share
from tests.waiting import wait_until

ROOT = Path(__file__).parents[3]


@dataclass
class Sample:
    """Its number, who made it, and what that process is like."""

    number: int
    pid: int
    has_model: bool
    threads: tuple[int, str]


def draw(number: int, delay_s: float = 0.0) -> Sample:
    time.sleep(delay_s * (number % 3 == 0))
    threads = torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]
    return Sample(number, os.getpid(), "openvis_model.inst_former" in sys.modules, threads)


def draw_until(bad: int, number: int) -> int:
    if number == bad:
        raise ValueError(f"a.json: video 3, b.mp4: sample {number} is broken")
    return number


def draw_mortal(marker: Path, times: int, number: int) -> int:
    """Its process dies at sample 9, a number of times."""
    died = marker.stat().st_size if marker.exists() else 0
    if number == 9 and died < times:
        marker.write_bytes(bytes(died + 1))
        os._exit(1)
    return number


def draw_logged(folder: Path, number: int) -> np.ndarray:
    (folder / f"{number} {os.getpid()}").touch()
    return np.full(1 << 20, number % 256, np.uint8)


def private_bytes(array: np.ndarray, number: int) -> int:
    """Memory of the process that no other has; the array has been read."""
    array.sum()
    return int(psutil.Process().memory_full_info().uss)


def numbers(share: Share, decoders: int = 2) -> list[list[int]]:
    return [[sample.number for sample in batch] for batch in batches(draw, share, decoders=decoders)]


def pids(folder: Path) -> set[int]:
    return {int(file.name.split()[1]) for file in folder.iterdir()}


def assert_ended(processes: set[int]) -> None:
    assert processes
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in processes))


def test_steps_are_in_order_whoever_is_slow() -> None:
    share = Share(first_step=0, last_step=30, batch_size=4)
    rows = list(batches(partial(draw, delay_s=0.02), share, decoders=2))
    assert [[sample.number for sample in row] for row in rows] == [
        list(range(4 * step, 4 * step + 4)) for step in range(30)
    ]
    samples = [sample for row in rows for sample in row]
    processes = {sample.pid for sample in samples}
    assert len(processes - {os.getpid()}) == 2
    assert {sample.threads for sample in samples} == {(1, "1")}
    assert not any(sample.has_model for sample in samples)
    assert_ended(processes)


def test_restarts_and_workers_see_the_same_samples() -> None:
    whole = numbers(Share(first_step=0, last_step=7, batch_size=4))
    assert numbers(Share(first_step=5, last_step=7, batch_size=4), decoders=1) == whole[5:]
    parts = [numbers(Share(first_step=0, last_step=7, batch_size=4, rank=rank, world_size=2), 1) for rank in (0, 1)]
    assert [first + second for first, second in zip(*parts, strict=True)] == whole
    assert numbers(Share(first_step=7, last_step=7, batch_size=4)) == []


def test_torch_draws_the_same_numbers_with_a_loader_as_without() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    numbers(Share(first_step=0, last_step=1, batch_size=1), 1)
    assert torch.equal(torch.rand(1), expected)


def test_an_error_comes_at_its_step_and_ends_everything() -> None:
    share = Share(first_step=0, last_step=1000, batch_size=2)
    seen = []
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(ValueError, match="^a.json: video 3, b.mp4: sample 9 is broken$"):
        seen.extend(batches(partial(draw_until, 9), share, decoders=1))
    assert seen == [[0, 1], [2, 3], [4, 5], [6, 7]]
    wait_until(lambda: set(psutil.Process().children(recursive=True)) <= before)


def test_a_process_that_dies_is_replaced(tmp_path: Path) -> None:
    sampler = partial(draw_mortal, tmp_path / "died", 1)
    rows = batches(sampler, Share(first_step=0, last_step=8, batch_size=2), decoders=1)
    assert [number for batch in rows for number in batch] == list(range(16))
    assert (tmp_path / "died").exists()


@pytest.mark.slow
def test_a_step_at_which_processes_always_die_is_an_error(tmp_path: Path) -> None:
    """Of a kind after which training starts again."""
    sampler = partial(draw_mortal, tmp_path / "died", 99)
    rows = batches(sampler, Share(first_step=0, last_step=8, batch_size=2), decoders=1)
    with pytest.raises(RuntimeError, match=r"step \d: its samples could not be made in two attempts"):
        list(rows)


def test_shared_memory_that_is_full_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here, not in the thread of a queue that nobody hears."""
    steps = _Steps(draw, Share(first_step=0, last_step=1, batch_size=1))

    def full(_: torch.Tensor) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(OSError, match="No space left"):
        steps[0]


def test_a_process_that_is_killed_is_replaced(tmp_path: Path) -> None:
    share = Share(first_step=0, last_step=60, batch_size=1)
    rows = batches(partial(draw_logged, tmp_path), share, decoders=2)
    seen = [int(next(rows)[0][0])]
    wait_until(lambda: len(pids(tmp_path)) == 2)
    os.kill(min(pids(tmp_path)), signal.SIGKILL)
    seen += [int(batch[0][0]) for batch in rows]
    assert seen == list(range(60))
    assert len(pids(tmp_path)) == 4
    assert_ended(pids(tmp_path))


def test_little_is_made_before_it_is_needed_and_closing_ends_the_processes(tmp_path: Path) -> None:
    share = Share(first_step=0, last_step=500, batch_size=1)
    rows: Any = batches(partial(draw_logged, tmp_path), share, decoders=2)
    for _ in range(20):
        next(rows)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 28)
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) == 28
    rows.close()
    assert_ended(pids(tmp_path))


@pytest.mark.slow
def test_processes_end_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    """While they wait to hand over what they made."""
    code = (
        "import sys, time; from functools import partial; from pathlib import Path; "
        "from pipelines.training.loader import batches; from pipelines.training.share import Share; "
        "from tests.pipelines.training.test_loader import draw_logged; "
        "share = Share(first_step=0, last_step=500, batch_size=1); "
        "rows = batches(partial(draw_logged, Path(sys.argv[1])), share, decoders=2); "
        "next(rows); time.sleep(60)"
    )
    worker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    try:
        wait_until(lambda: len(list(tmp_path.iterdir())) >= 9)
        processes = pids(tmp_path) | {child.pid for child in psutil.Process(worker.pid).children(recursive=True)}
    finally:
        worker.kill()
        worker.wait()
    assert_ended(processes)


def test_arrays_are_not_copied_to_every_process() -> None:
    share = Share(first_step=0, last_step=4, batch_size=1)
    (small,), *_ = batches(partial(private_bytes, np.ones(1, np.uint8)), share, decoders=2)
    large = batches(partial(private_bytes, np.ones(256 << 20, np.uint8)), share, decoders=2)
    assert max(size for (size,) in large) < small + (64 << 20)


def test_decoders_out_of_range() -> None:
    with pytest.raises(ValueError, match="decoders: expected at least 1, got 0"):
        batches(draw, Share(first_step=0, last_step=4, batch_size=2), decoders=0)
