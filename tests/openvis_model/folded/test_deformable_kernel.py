"""The kernel in Triton's interpreter, which needs no GPU, and its machine code for GPUs of NVIDIA.

Each script runs in a process of its own: Triton decides when it is imported, and shape checks would hide the source.
"""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton comes with the CUDA builds of torch")

AGREES = """
import logging, numpy, torch
from openvis_model.folded import deformable_attention as attention, deformable_kernel as kernel
logging.basicConfig(format="%(message)s")
cpu = torch.device("cpu")
assert attention.kernel_works(cpu, 8)

grid = attention.Grid.of(((2, 3), (4, 6)), torch.zeros(1))
where = grid.places[:, None, :, None] + 4 * torch.rand(1, 30, 2, 2, 1, 2) - 2
where[0, 0, 0, 0, 0] = torch.tensor([1e9, -1e9])
value, share = torch.rand(1, 30, 2, 8), torch.rand(1, 30, 2, 2, 1)
given = (where, share, grid.sizes, grid.starts)
expected = attention.sample_rows(value, *given)
torch.testing.assert_close(kernel.sample_by_kernel(value, *given), expected, rtol=0, atol=1e-6)
torch.testing.assert_close(
    kernel.sample_by_kernel(value.bfloat16(), *given), expected.bfloat16(), rtol=0.02, atol=0.02
)

numpy.seterr(invalid="ignore")  # in the interpreter
for bad in (float("nan"), float("inf")):
    where[0, 0, 0, 0, 0, 0] = bad
    given = (where, share, grid.sizes, grid.starts)
    for sampled in (kernel.sample_by_kernel(value, *given), attention.sample_rows(value, *given)):
        assert sampled.isnan().nonzero().tolist() == [[0, 0, channel] for channel in range(8)]

assert not attention.kernel_works(cpu, 6)
kernel.sample_by_kernel = lambda value, *_: torch.zeros_like(value).flatten(2)
assert not attention.kernel_works(cpu, 16)
"""

COMPILES = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from openvis_model.folded.deformable_kernel import _sample
constants = {"heads": 8, "levels": 3, "points": 4, "width": 32, "block": 32}
types = dict.fromkeys(("where", "attention", "sizes", "starts"), "*fp32") | dict.fromkeys(("value", "out"), "*bf16")
types = {name: types.get(name, "i32" if name == "places" else "constexpr") for name in _sample.arg_names}
for architecture in (80, 90):
    source = ASTSource(_sample, signature=types, constexprs=constants)
    assert triton.compile(source, target=GPUTarget("cuda", architecture, 32)).asm["cubin"]
"""


def run(script: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", script], env=os.environ | environment, check=False, capture_output=True, text=True
    )


def test_the_kernel_gives_the_numbers_of_the_plain_form_or_is_not_used() -> None:
    done = run(AGREES, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr
    unusable, wrong = done.stderr.splitlines()
    assert unusable.startswith("no Triton kernel for deformable attention on cpu: ValueError(")
    assert wrong == "the Triton kernel for deformable attention is wrong on cpu"


def test_the_kernel_becomes_machine_code() -> None:
    done = run(COMPILES)
    assert done.returncode == 0, done.stderr
