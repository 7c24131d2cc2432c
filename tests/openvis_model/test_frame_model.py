import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from torch import Tensor

from openvis_model.colours import mean_colours
from openvis_model.config import mini
from openvis_model.frame_model import FrameModel, compact
from openvis_model.frames import to_pixels
from openvis_model.inst_former import InstFormer
from openvis_model.weights.checkpoint import fold
from tests.openvis_model.same import assert_same
from tests.words import WORDS


def test_instances_are_the_parts_results(mini_model: InstFormer, frames: Tensor) -> None:
    result = mini_model(frames, frame_size=(240, 320))
    with torch.inference_mode():
        pixels = to_pixels(frames, mini_model.mask_proposal.input_size)
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
        assert torch.allclose(instances.colours, mean_colours(pixels[t : t + 1], proposals.mask_logits[t], [16]))
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


def test_frames_without_objects_are_not_embedded(mini_model: InstFormer, frames: Tensor) -> None:
    best = sorted(instances.objectness.max().item() for instances in mini_model(frames))
    floor, embedded = (best[1] + best[2]) / 2, list[int]()
    one_by_one = [mini_model(frame[None], objectness_floor=floor)[0] for frame in frames]
    hook = mini_model.classifier.register_forward_pre_hook(lambda _, given: embedded.append(len(given[0])))
    together = mini_model(frames, objectness_floor=floor)
    hook.remove()
    assert embedded == [3]
    assert sorted(len(instances) > 0 for instances in together) == [False, False, True, True, True]
    assert_same(together, one_by_one)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize(
    ("height", "width", "clip_side", "shared"),
    [(96, 160, None, True), (180, 240, None, True), (90, 160, None, False), (96, 160, 64, False)],
)
def test_frames_are_converted_once_for_networks_that_see_one_size(
    height: int, width: int, clip_side: int | None, shared: bool, folded: bool
) -> None:
    """96 × 160 for proposals and 96 × 168 for CLIP if frames are 90 × 160."""
    config = replace(mini(WORDS), short_side=96, classifier_short_side=clip_side)
    network = InstFormer(config).eval()
    model: FrameModel = fold(network) if folded else network
    frames, given = torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8), list[Tensor]()
    networks = (model.mask_proposal, model.classifier)
    hooks = [network.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0])) for network in networks]
    instances = model(frames)
    for hook in hooks:
        hook.remove()
    assert [each.is_floating_point() for each in given] == [True, shared]
    with torch.inference_mode():
        proposals = model.mask_proposal(frames)
        tokens = model.classifier(frames, proposals.mask_logits, torch.arange(16).expand(2, -1))
    for t, found in enumerate(instances):
        assert torch.equal(found.queries, proposals.queries[t])
        assert torch.equal(found.instance_tokens, tokens[t])


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
        fresh_model.mask_proposal.network.class_predictor.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="objectness are NaN"):
        fresh_model(frames)


def test_instances_are_pickled_without_their_batch(mini_model: InstFormer, frames: Tensor) -> None:
    alone = len(pickle.dumps(mini_model(frames[:1])[0]))
    assert len(pickle.dumps(mini_model(frames.repeat(3, 1, 1, 1))[0])) < 1.2 * alone


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


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("bad", [torch.zeros(2, 3, 96, 96, dtype=torch.uint8), torch.zeros(2, 96, 96, 3)])
def test_bad_frames_are_refused(mini_model: InstFormer, bad: Tensor) -> None:
    with pytest.raises(ValueError, match="frames"):
        mini_model(bad)
