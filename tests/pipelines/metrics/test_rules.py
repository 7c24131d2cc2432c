import subprocess
import sys

import pytest

from pipelines.metrics.rules import LVVIS, OPEN_VOCABULARY, UVO, YTVIS, ApRules


@pytest.mark.parametrize("rules", [YTVIS, LVVIS, UVO, OPEN_VOCABULARY])
def test_every_benchmark_prints_the_same_recalls(rules: ApRules) -> None:
    assert rules.max_detections == (1, 10, 100)


def test_only_our_own_rules_are_strict() -> None:
    assert [rules.strict for rules in (YTVIS, LVVIS, UVO, OPEN_VOCABULARY)] == [False, False, False, True]


def test_rules_load_without_numpy() -> None:
    check = "import pipelines.metrics.rules, sys; assert not {'numpy', 'numba', 'torch'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", check], check=True)
