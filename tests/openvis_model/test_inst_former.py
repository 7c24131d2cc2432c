import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from torch import Tensor
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.clip import build_clip
from openvis_model.config import InstFormerConfig
from openvis_model.inst_clip import InstClip
from openvis_model.inst_former import InstFormer, compact
from openvis_model.instances import Instances
from openvis_model.mask_proposal import MaskProposalConfig
from openvis_model.training.config import SetCriterionConfig
from openvis_model.training.losses import SetCriterion, classification_loss


def assert_same(a: list[Instances], b: list[Instances]) -> None:
    assert [len(frame) for frame in a] == [len(frame) for frame in b]
    for one, other in zip(a, b, strict=True):
        assert one.masks == other.masks
        assert torch.equal(one.query_index, other.query_index)
        for name in ("objectness", "instance_tokens", "queries"):
            assert torch.allclose(getattr(one, name), getattr(other, name), atol=1e-5), name


def test_instances_are_the_parts_results(mini_model: InstFormer, frames: Tensor) -> None:
    result = mini_model(frames, frame_size=(240, 320))
    with torch.inference_mode():
        proposals = mini_model.mask_proposal(frames)
        every = torch.arange(16).expand(5, -1)
        tokens = mini_model.classifier(frames, proposals.mask_logits, every)
        up = torch.nn.functional.interpolate(proposals.mask_logits.double(), size=(240, 320), mode="bilinear")
    assert len(result) == 5
    for t, instances in enumerate(result):
        assert len(instances) == 16
        assert (instances.instance_tokens - tokens[t]).abs().max() < 1e-5
        assert torch.equal(instances.queries, proposals.queries[t])
        assert torch.equal(instances.objectness, proposals.objectness[t])
        assert instances.masks.size == (240, 320)
        dense = coco.decode(instances.masks.to_coco())
        assert (torch.from_numpy(dense.astype(bool)).permute(2, 0, 1) == (up[t] > 0)).float().mean() > 0.9999
        assert np.array_equal(dense.sum((0, 1)), instances.masks.areas)


def test_floor_keeps_the_same_instances_without_the_rest(mini_model: InstFormer, frames: Tensor) -> None:
    everything = mini_model(frames)
    floor = torch.cat([instances.objectness for instances in everything]).median().item()
    for full, kept in zip(everything, mini_model(frames, objectness_floor=floor), strict=True):
        index = (full.objectness >= floor).nonzero()[:, 0]
        assert torch.equal(kept.query_index, index)
        assert torch.allclose(kept.instance_tokens, full.instance_tokens[index], atol=1e-5)
        assert kept.masks.counts == tuple(full.masks.counts[i] for i in index)


def test_batching_is_invisible(mini_model: InstFormer, frames: Tensor) -> None:
    floor = 0.5
    one_by_one = [mini_model(frame[None], objectness_floor=floor)[0] for frame in frames]
    assert_same(mini_model(frames, objectness_floor=floor), one_by_one)


def test_frames_without_objects_are_normal(mini_model: InstFormer, frames: Tensor) -> None:
    result = mini_model(frames, objectness_floor=1.0)
    assert [len(instances) for instances in result] == [0] * 5
    assert result[0].instance_tokens.shape == (0, 128)
    assert result[0].masks.boxes.shape == (0, 4)


def test_a_floor_that_is_no_probability_is_refused(mini_model: InstFormer, frames: Tensor) -> None:
    with pytest.raises(ValueError, match="objectness_floor.*1.5"):
        mini_model(frames, objectness_floor=1.5)


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("size", [(96,), (96.0, 128), (0, 4), (96, 128, 3)])
def test_a_frame_size_that_is_none_is_refused(mini_model: InstFormer, frames: Tensor, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="frame_size"):
        mini_model(frames, frame_size=size)


@pytest.mark.usefixtures("as_user")
def test_frames_that_are_no_tensor_are_refused(mini_model: InstFormer, frames: Tensor) -> None:
    with pytest.raises(ValueError, match="frames: expected a torch tensor, got ndarray"):
        mini_model(frames.numpy())


def test_training_mode_is_refused(fresh_model: InstFormer, frames: Tensor) -> None:
    assert not fresh_model.training
    with pytest.raises(ValueError, match="eval"):
        fresh_model.train()(frames)


def test_a_model_that_computes_nan_is_named(fresh_model: InstFormer, frames: Tensor) -> None:
    with torch.no_grad():
        fresh_model.mask_proposal.mask2former.class_predictor.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="objectness are NaN"):
        fresh_model(frames)


def test_instances_are_pickled_without_their_batch(mini_model: InstFormer, frames: Tensor) -> None:
    alone = len(pickle.dumps(mini_model(frames[:1])[0]))
    assert len(pickle.dumps(mini_model(frames.repeat(3, 1, 1, 1))[0])) < 1.2 * alone


def test_parts_of_another_config_are_refused(mini_config: InstFormerConfig) -> None:
    other = mini_config.mask_proposal.mask2former | {"num_queries": 20}
    network = Mask2FormerForUniversalSegmentation(MaskProposalConfig(mask2former=other).build())
    with pytest.raises(ValueError, match=r"queries_embedder.weight is \[20, 64\], the config wants \[16, 64\]"):
        InstFormer(mini_config, mask2former=network)
    quick = replace(mini_config.clip, architecture=mini_config.clip.architecture | {"quick_gelu": True})
    with pytest.raises(ValueError, match="activation is QuickGELU, the config's GELU"):
        InstFormer(mini_config, clip=build_clip(quick))
    grey = replace(mini_config.clip, pixel_mean=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match=r"pixel_mean is \(0.5, 0.5, 0.5\)"):
        InstFormer(mini_config, clip=build_clip(grey))


def test_a_folded_model_finds_the_same_and_cannot_be_trained(fresh_model: InstFormer, frames: Tensor) -> None:
    before = fresh_model(frames)
    assert_same(fresh_model.fold_for_inference()(frames), before)
    with pytest.raises(ValueError, match="folded"):
        fresh_model.train_only(1)


def test_stage_2_leaves_everything_else_in_eval_mode(fresh_model: InstFormer, frames: Tensor) -> None:
    fresh_model.train_only(2)
    fresh_model.train()
    before = [buffer.clone() for buffer in fresh_model.buffers()]
    with torch.no_grad():
        fresh_model.mask_proposal(frames)
    assert all(torch.equal(a, b) for a, b in zip(before, fresh_model.buffers(), strict=True))
    assert fresh_model.rollout_tracker.training
    assert not fresh_model.mask_proposal.training


def test_compact_by_hand() -> None:
    kept = torch.tensor([[True, False, True, False], [False, False, False, True], [False] * 4])
    index, valid = compact(kept)
    assert index.tolist()[0] == [0, 2]
    assert index.tolist()[1][0] == 3
    assert valid.tolist() == [[True, True], [True, False], [False, False]]


def test_bfloat16_autocast_runs(mini_model: InstFormer, frames: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        half = mini_model(frames)
    full = mini_model(frames)
    assert half[0].instance_tokens.dtype == torch.float32
    similarity = (half[0].instance_tokens * full[0].instance_tokens).sum(-1)
    assert similarity.min() > 0.99


@pytest.fixture
def fresh_model(mini_config: InstFormerConfig) -> InstFormer:
    return InstFormer(mini_config)


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


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("bad", [torch.zeros(2, 3, 96, 96, dtype=torch.uint8), torch.zeros(2, 96, 96, 3)])
def test_bad_frames_are_refused(mini_model: InstFormer, bad: Tensor) -> None:
    with pytest.raises(ValueError, match="frames"):
        mini_model(bad)
