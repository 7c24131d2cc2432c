from typing import Any

import pytest

from pipelines.evaluation.config import CheckpointConfig, DatasetConfig, SweepConfig


@pytest.mark.parametrize(
    ("checkpoints", "message"),
    [
        ([], "checkpoints: is empty"),
        (["a", "a"], "name 'a' must be unique"),
        (["../a"], "name '../a' must be unique, of letters"),
    ],
)
def test_names_of_cells_are_unique_and_safe(checkpoints: list[str], message: str) -> None:
    datasets = [DatasetConfig(name="s", protocol="shapes", ground_truth="instances.json")]
    with pytest.raises(ValueError, match=message):
        SweepConfig(output="x", datasets=datasets, checkpoints=[CheckpointConfig(name=name) for name in checkpoints])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "coco"}, "s: protocol: unknown value 'coco'; choose one of ytvis"),
        ({"protocol": "uvo", "top_k": 0}, "s: top_k: expected at least 1, got 0"),
    ],
)
@pytest.mark.usefixtures("as_user")
def test_bad_data_sets_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DatasetConfig(name="s", ground_truth="instances.json", **options)
