"""What a machine can do at best: its rates of multiplying and of copying."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from pipelines.cluster.nodes import cores

_SIDE = {"cpu": 2048, "cuda": 8192}  # of matrices: on a GPU, much more work than telling it to begin
_COPIED = 2**26  # numbers; larger than any cache


@dataclass(frozen=True)
class Machine:
    """A device, measured.

    Attributes:
        name: what the device calls itself.
        cores: CPU cores of the machine that this process may use.
        threads: of those, the ones that the model uses.
        matmul_flops: multiplications and additions per second of a large matrix product.
        copy_bytes: bytes read and written per second when a large array is copied.
        load: how busy the machine was before the benchmark: processes that want a core, on average over a minute.
    """

    name: str
    cores: int
    threads: int
    matmul_flops: float
    copy_bytes: float
    load: float

    def at_best(self, later: "Machine") -> "Machine":
        """Returns this machine with the higher rates of two measurements: other programs only ever slow it down."""
        return replace(
            self,
            matmul_flops=max(self.matmul_flops, later.matmul_flops),
            copy_bytes=max(self.copy_bytes, later.copy_bytes),
        )


def measure_machine(device: str, dtype: torch.dtype, seconds: float) -> Machine:
    """Measures a device.

    Args:
        device: `cpu` or `cuda`.
        dtype: of the products.
        seconds: how long each rate is measured.
    """
    load = os.getloadavg()[0]
    side = _SIDE[device]
    left, right = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.ones(_COPIED, device=device)
    target = torch.empty_like(source)
    return Machine(
        name=torch.cuda.get_device_name() if device == "cuda" else _processor(),
        cores=cores(),
        threads=torch.get_num_threads(),
        matmul_flops=2 * side**3 / best_seconds(lambda: torch.mm(left, right), seconds),
        copy_bytes=2 * source.nbytes / best_seconds(lambda: target.copy_(source), seconds),
        load=load,
    )


def best_seconds(work: Callable[[], object], seconds: float) -> float:
    """Returns the time of the fastest of many turns, which other programs have disturbed least.

    Args:
        work: is done once to warm up, and then at least twice.
        seconds: how long to go on.
    """
    work()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < 2 or time.perf_counter() < end:
        wait_for_device()
        start = time.perf_counter()
        work()
        wait_for_device()
        taken.append(time.perf_counter() - start)
    return min(taken)


def wait_for_device() -> None:
    """Waits until a GPU has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
