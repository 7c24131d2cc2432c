import math
from typing import Any

import pytest
import torch
from torch import nn

from pipelines.training.config import OptimizerConfig
from pipelines.training.optimizer import build_optimizer, embeddings_of, learning_rate_factor


def factors(steps: int, **options: Any) -> list[float]:
    config = OptimizerConfig(**options)
    return [learning_rate_factor(step, steps, config) for step in range(steps)]


def test_constant_with_warmup() -> None:
    assert factors(6, schedule="constant", warmup_steps=3) == [0.25, 0.5, 0.75, 1, 1, 1]


def test_steps() -> None:
    assert factors(20, milestones=(0.9, 0.95)) == pytest.approx([1] * 18 + [0.1] + [0.01])
    assert factors(100, milestones=(0.55,)) == pytest.approx([1] * 55 + [0.1] * 45)  # 0.55 · 100 > 55 in floats
    falls = [step for step in range(1, 6000) if factors_at(step) != factors_at(step - 1)]
    assert falls == [5400, 5700]


def factors_at(step: int) -> float:
    return learning_rate_factor(step, 6000, OptimizerConfig())


def test_cosine() -> None:
    found = factors(6, schedule="cosine", warmup_steps=2)
    cosine = [0.5 * (1 + math.cos(math.pi * past / 4)) for past in range(4)]
    assert found == pytest.approx([1 / 3, 2 / 3, *cosine])


def test_no_step_is_without_learning() -> None:
    for schedule in ("constant", "cosine", "steps"):
        assert min(factors(7, schedule=schedule, warmup_steps=6)) > 0
        assert factors(1, schedule=schedule) == [1]


def test_weight_decay_is_for_matrices() -> None:
    network = nn.Sequential(nn.Embedding(5, 4), nn.Conv2d(3, 4, 1), nn.LayerNorm(4), nn.Linear(4, 2))
    groups = {"backbone": list(network[:2].parameters()), "other": list(network[2:].parameters())}
    optimizer = build_optimizer(groups, OptimizerConfig(), embeddings=embeddings_of(network))
    found = {
        id(weight): (group["weight_decay"], group["factor"])
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    assert found == {
        id(network[0].weight): (0, 0.1),
        id(network[1].weight): (0.05, 0.1),
        id(network[1].bias): (0, 0.1),
        id(network[2].weight): (0, 1),
        id(network[2].bias): (0, 1),
        id(network[3].weight): (0.05, 1),
        id(network[3].bias): (0, 1),
    }


def test_groups_that_cannot_be_trained() -> None:
    layer, config = nn.Linear(2, 2), OptimizerConfig()
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer({"other": []}, config)
    with pytest.raises(ValueError, match="'b': holds parameters of another group"):
        build_optimizer({"a": list(layer.parameters()), "b": [layer.bias]}, config)
    layer.bias.requires_grad_(False)
    with pytest.raises(ValueError, match="'a': holds frozen parameters"):
        build_optimizer({"a": list(layer.parameters())}, config)


def test_adamw_gets_its_numbers() -> None:
    optimizer = build_optimizer({"a": [nn.Parameter(torch.ones(2, 2))]}, OptimizerConfig(betas=(0.8, 0.9)))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)
