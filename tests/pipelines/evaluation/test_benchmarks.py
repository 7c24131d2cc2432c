import subprocess
import sys
from typing import get_args

import pytest

from pipelines.evaluation.benchmarks import BENCHMARKS, Protocol


def test_every_protocol_is_a_benchmark() -> None:
    assert tuple(BENCHMARKS) == get_args(Protocol)


def test_numbers_of_predictions_are_those_of_published_numbers() -> None:
    assert {name: benchmark.top_k for name, benchmark in BENCHMARKS.items()} == {
        "ytvis": 10,
        "lvvis": 50,
        "uvo": 100,
        "burst": 50,
        "shapes": 10,  # fixed before the first result; see docs/evaluation.md
    }


@pytest.mark.parametrize("name", BENCHMARKS)
def test_reports_have_headings_for_what_they_compare(name: Protocol) -> None:
    benchmark = BENCHMARKS[name]
    assert {benchmark.headline[0], *(benchmark.pair or ()), *benchmark.controls} <= benchmark.columns.keys()
    assert all(name.format("AP") != name for name in benchmark.table.columns.values())


def test_listing_benchmarks_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'numba', 'numpy', 'scipy', 'pyarrow', 'ray', 'boto3'}"
    check = f"import pipelines.evaluation.benchmarks, sys; assert not {heavy} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", check], check=True)
