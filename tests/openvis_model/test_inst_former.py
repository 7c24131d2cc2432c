import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.clip import build_clip
from openvis_model.config import InstFormerConfig
from openvis_model.inst_clip import InstClip
from openvis_model.inst_former import InstFormer
from openvis_model.mask_proposal import PretrainedProposals
from openvis_model.training.config import SetCriterionConfig
from openvis_model.training.losses import classification_loss
from openvis_model.training.set_criterion import SetCriterion


def test_parts_of_another_config_are_refused(mini_config: InstFormerConfig) -> None:
    other = mini_config.mask_proposal.architecture | {"num_queries": 20}
    config = replace(mini_config.mask_proposal, architecture=other)
    proposals = PretrainedProposals(config, Mask2FormerForUniversalSegmentation(config.build()))
    with pytest.raises(ValueError, match=r"queries_embedder.weight is \[20, 64\], the config wants \[16, 64\]"):
        InstFormer(mini_config, proposals=proposals)
    grey = replace(mini_config.mask_proposal, pixel_mean=(0.5, 0.5, 0.5))
    proposals = PretrainedProposals(grey, Mask2FormerForUniversalSegmentation(grey.build()))
    with pytest.raises(ValueError, match=r"mask_proposal: its pixel_mean is \(0\.5, 0\.5, 0\.5\), the config's"):
        InstFormer(mini_config, proposals=proposals)
    quick = replace(mini_config.clip, architecture=mini_config.clip.architecture | {"quick_gelu": True})
    with pytest.raises(ValueError, match="activation is QuickGELU, the config's GELU"):
        InstFormer(mini_config, clip=build_clip(quick))
    other_pixels = replace(mini_config.clip, pixel_mean=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match=r"pixel_mean is \(0.5, 0.5, 0.5\)"):
        InstFormer(mini_config, clip=build_clip(other_pixels))


def test_stage_2_leaves_everything_else_in_eval_mode(fresh_model: InstFormer, frames: Tensor) -> None:
    fresh_model.train_only(2)
    fresh_model.train()
    before = [buffer.clone() for buffer in fresh_model.buffers()]
    with torch.no_grad():
        fresh_model.mask_proposal(frames)
    assert all(torch.equal(a, b) for a, b in zip(before, fresh_model.buffers(), strict=True))
    assert fresh_model.rollout_tracker.training
    assert not fresh_model.mask_proposal.training


def test_stage_1_trains_proposals_adapters_tokens_and_register(fresh_model: InstFormer) -> None:
    names = fresh_model.train_only(1)
    assert set(names) == {name for name, p in fresh_model.named_parameters() if p.requires_grad}
    proposal = {name for name in names if name.startswith("mask_proposal.")}
    assert proposal == {f"mask_proposal.{name}" for name, _ in fresh_model.mask_proposal.named_parameters()}
    rest = sorted(set(names) - proposal)
    layers = r"classifier\.visual\.transformer\.resblocks\.[0-3]\.attn\.[qv]_proj\.lora_[AB]\.default\.weight"
    assert len(rest) == 2 + 4 * 2 * 2
    assert all(
        name in ("classifier.instance_tokens", "classifier.register_token") or re.fullmatch(layers, name)
        for name in rest
    )


def test_stage_1_leaves_frozen_batch_norms_alone(mini_config: InstFormerConfig) -> None:
    model = InstFormer(replace(mini_config, mask_proposal=replace(mini_config.mask_proposal, freeze_batch_norm=True)))
    norms = {
        f"{module_name}.{name}"
        for module_name, module in model.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
        for name, _ in module.named_parameters()
    }
    assert len(norms) > 10
    assert not norms & set(model.train_only(1))


def test_stage_2_trains_the_tracker_alone(fresh_model: InstFormer) -> None:
    assert set(fresh_model.train_only(2)) == {
        f"rollout_tracker.predictor.{name}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }


def test_crop_clip_trains_proposals_alone(mini_config: InstFormerConfig) -> None:
    model = InstFormer(replace(mini_config, classifier="crop_clip"))
    assert all(name.startswith("mask_proposal.") for name in model.train_only(1))


@pytest.mark.usefixtures("as_user")
def test_another_stage_is_refused(fresh_model: InstFormer) -> None:
    with pytest.raises(ValueError, match="stage.*3"):
        fresh_model.train_only(3)


def test_a_training_step_reaches_every_trainable_parameter(fresh_model: InstFormer, frames: Tensor) -> None:
    """Stage 1 as training will run it: set losses on all layers, instance tokens of matched queries only."""
    names = fresh_model.train_only(1)
    fresh_model.train()
    clip_before = {name: p.clone() for name, p in fresh_model.named_parameters() if name not in names}
    masks = torch.zeros(2, 96, 128, dtype=torch.bool)
    masks[0, 10:40, 10:50], masks[1, 50:90, 60:120] = True, True
    layers = fresh_model.mask_proposal.layers(frames[:2])
    criterion = SetCriterion(SetCriterionConfig(num_points=256))
    losses, matches = criterion(
        [layer.mask_logits for layer in layers], [layer.objectness_logits for layer in layers], [masks, masks]
    )
    query_index = torch.stack([match.query_index for match in matches])
    matched = torch.stack([layers[-1].mask_logits[i, index] for i, index in enumerate(query_index)])
    tokens = fresh_model.classifier(frames[:2], matched.detach(), query_index)
    vocabulary = torch.nn.functional.normalize(torch.randn(3, 128), dim=-1)
    loss = sum(losses.values()) + classification_loss(
        tokens.flatten(0, 1), vocabulary, torch.tensor([0, 1, 2, 0]), 10.0
    )
    loss.backward()

    assert [name for name in names if fresh_model.get_parameter(name).grad is None] == []
    torch.optim.AdamW([fresh_model.get_parameter(name) for name in names], lr=0.1).step()
    assert all(torch.equal(fresh_model.get_parameter(name), p) for name, p in clip_before.items())
    assert isinstance(fresh_model.classifier, InstClip)
