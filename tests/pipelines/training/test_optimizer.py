import math
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.clip import build_clip
from openvis_model.config import mini, paper
from openvis_model.inst_former import InstFormer
from pipelines.training.config import OptimizerConfig
from pipelines.training.optimizer import build_optimizer, learning_rate_factor, undecayed_of


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


def test_weight_decay_spares_norms_and_embeddings_but_not_biases() -> None:
    network = nn.Sequential(nn.Embedding(5, 4), nn.Conv2d(3, 4, 1), nn.LayerNorm(4), nn.Linear(4, 2))
    groups = {"backbone": list(network[:2].parameters()), "other": list(network[2:].parameters())}
    optimizer = build_optimizer(groups, OptimizerConfig(), undecayed=undecayed_of(network))
    found = {
        id(weight): (group["weight_decay"], group["factor"])
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    assert found == {
        id(network[0].weight): (0, 0.1),
        id(network[1].weight): (0.05, 0.1),
        id(network[1].bias): (0.05, 0.1),
        id(network[2].weight): (0, 1),
        id(network[2].bias): (0, 1),
        id(network[3].weight): (0.05, 1),
        id(network[3].bias): (0.05, 1),
    }


def test_a_bias_decays_by_hand() -> None:
    """Without a gradient, AdamW multiplies by 1 - 0.1 · 0.5 = 0.95; a norm stays."""
    network = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    bias = network[0].bias.detach().clone()
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.5)
    optimizer = build_optimizer({"a": list(network.parameters())}, config, undecayed=undecayed_of(network))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(network[0].bias, 0.95 * bias)
    assert torch.equal(network[1].weight, torch.ones(2))


def test_weight_decay_of_mask2former_by_layer() -> None:
    """What the published training spares, in a Swin backbone, pixel decoder and transformer decoder."""
    with torch.device("meta"):
        network = Mask2FormerForUniversalSegmentation(paper("swin_tiny").mask_proposal.build())
    spared = {id(parameter) for parameter in undecayed_of(network)}
    names = {name: id(parameter) in spared for name, parameter in network.named_parameters()}
    kinds = {
        ".norm.weight": True,
        "layernorm_before.bias": True,
        "relative_position_bias_table": True,
        "queries_embedder.weight": True,
        "queries_features.weight": True,
        "transformer_module.level_embed.weight": True,
        "decoder.level_embed": False,  # the pixel decoder's is no embedding layer
        "q_proj.weight": False,
        "q_proj.bias": False,
        "in_proj_bias": False,
        "class_predictor.bias": False,
    }
    for ending, expected in kinds.items():
        found = {is_spared for name, is_spared in names.items() if name.endswith(ending)}
        assert found == {expected}, ending


def test_tokens_positions_and_temperature_of_clip_are_spared() -> None:
    clip = build_clip(mini(("star",)).clip)
    other = InstFormer(mini(("star",)))
    spared = {id(parameter) for parameter in (*undecayed_of(clip), *undecayed_of(other))}
    assert other.classifier.register_token is not None
    for parameter in (
        clip.logit_scale,
        clip.visual.class_embedding,
        clip.visual.positional_embedding,
        other.classifier.instance_tokens,
        other.classifier.register_token,
    ):
        assert id(parameter) in spared
    for parameter in (clip.visual.proj, clip.visual.transformer.resblocks[0].mlp.c_fc.bias):
        assert id(parameter) not in spared


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
