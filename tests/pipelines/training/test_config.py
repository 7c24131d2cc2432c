from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.training.config import OptimizerConfig
from pipelines.training.output import STATE, TrainingOutput, checkpoint_path
from tests.pipelines.training.points import settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"checkpoint_every": 0}, "checkpoint_every: expected at least 1"),
        ({"threads": 0}, "threads: expected at least 1"),
        ({"validate_every": -1}, "validate_every: expected 0 or more"),
        ({"cpus_per_worker": 0.0}, "cpus_per_worker: expected more than 0"),
        ({"stall_s": 0.0}, "stall_s: expected more than 0"),
        ({"precision": "half"}, "precision: unknown value 'half'; choose one of float32, bfloat16, float16"),
        ({"precision": "float16"}, "precision: float16 needs a GPU"),
        ({"workers": "3-2"}, "workers: expected a number from 1 on, or a range such as 1-8, got 3-2"),
        ({"workers": "5-7"}, "batch_size: expected a multiple of workers x accumulate .5-7 x 1., got 8"),
        ({"workers": "2-9"}, "batch_size: expected a multiple of workers x accumulate .2-9 x 1., got 8"),
        ({"grace_s": -1.0}, "grace_s: expected 0 or more"),
        ({"workers": 2, "accumulate": 3}, "batch_size: expected a multiple of workers x accumulate .2 x 3., got 8"),
    ],
)
def test_bad_settings(tmp_path: Path, options: dict[str, Any], message: str, as_user: None) -> None:
    with pytest.raises(ValueError, match=message):
        settings(tmp_path, **options)


def test_identity_is_what_weights_depend_on(tmp_path: Path) -> None:
    config = settings(tmp_path)
    same: list[dict[str, Any]] = [
        {"output": "elsewhere"},
        {"accumulate": 4},
        {"workers": 2},
        {"workers": "1-3"},
        {"threads": 2},
        {"checkpoint_every": 7},
        {"keep_checkpoints": 7},
        {"validate_every": 7},
        {"max_failures": 7},
        {"stall_s": 7.0},
    ]
    assert all(replace(config, **options).identity() == config.identity() for options in same)
    other: list[dict[str, Any]] = [
        {"steps": 9},
        {"batch_size": 16},
        {"precision": "bfloat16"},
        {"seed": 1},
        {"optimizer": OptimizerConfig(gamma=0.5)},
    ]
    assert all(replace(config, **options).identity() != config.identity() for options in other)


def test_a_training_that_began_by_older_rules_is_refused(tmp_path: Path) -> None:
    """Its weights had another weight decay, and its optimizer other groups."""
    identity = settings(tmp_path).identity()
    output = TrainingOutput.open(str(tmp_path))
    output.begin({name: value for name, value in identity.items() if name != "rules"})
    output.write(f"{checkpoint_path(1)}/{STATE}", b'{"files": {}}')
    with pytest.raises(ValueError, match=r"differs in rules .output: None, now: 2.; choose another output.*version"):
        output.begin(identity)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0}, "learning_rate: expected more than 0"),
        ({"weight_decay": -1}, "weight_decay: expected 0 or more"),
        ({"clip_norm": 0.0}, "clip_norm: expected more than 0"),
        ({"betas": (0.9, 1.0)}, "betas: expected 0 to below 1"),
        ({"schedule": "linear"}, "schedule: unknown value 'linear'; choose one of constant, cosine, steps"),
        ({"milestones": (0.9, 0.5)}, "milestones: expected rising shares"),
        ({"milestones": (4000.0,)}, "milestones: expected rising shares"),
    ],
)
def test_bad_optimizer_settings(options: dict[str, Any], message: str, as_user: None) -> None:
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**options)
