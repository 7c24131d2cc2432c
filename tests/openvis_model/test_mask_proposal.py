import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from openvis_model.guidance import instance_guidance
from openvis_model.mask_proposal import MaskProposalConfig, MaskProposalNetwork, by_field
from openvis_model.proposal_networks import NETWORKS, build_mask_proposal
from openvis_model.proposals import Proposals
from openvis_model.rle import encode_logits
from tests.networks import TINY_PROPOSALS


@pytest.mark.parametrize("name", NETWORKS)
def test_json_round_trip(name: str) -> None:
    config = TINY_PROPOSALS[name]
    values = json.loads(json.dumps(config.to_dict()))
    assert values == {name: json.loads(json.dumps(config.architecture)), "freeze_batch_norm": True}
    assert MaskProposalConfig(**by_field(values)) == config


def test_preprocessing_is_stored_where_it_is_unusual() -> None:
    config = replace(TINY_PROPOSALS["rf_detr"], pixel_mean=(0.5, 0.5, 0.5), image_size=96)
    assert config.to_dict().keys() == {"rf_detr", "freeze_batch_norm", "pixel_mean", "image_size"}


@pytest.mark.parametrize("values", [{"freeze_batch_norm": True}, {"eomt": {}, "mask2former": {}}])
def test_a_config_of_no_or_two_networks_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected one network"):
        by_field(values)


@pytest.mark.parametrize(("field", "value"), [("pixel_std", (0.1, 0.0, 0.1)), ("image_size", -1)])
def test_preprocessing_that_cannot_be_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        replace(TINY_PROPOSALS["eomt"], **{field: value})


@pytest.mark.parametrize("name", NETWORKS)
def test_pixels_are_normalised_as_the_config_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grey of 128 of 255, three times another mean and deviation."""
    config = replace(TINY_PROPOSALS[name], pixel_mean=(0.1, 0.2, 0.3), pixel_std=(0.5, 0.25, 0.2))
    network = build_mask_proposal(config, short_side=64).eval()
    seen: list[Tensor] = []
    propose = network.propose
    monkeypatch.setattr(network, "propose", lambda pixels, **values: seen.append(pixels) or propose(pixels, **values))
    with torch.inference_mode():
        network(torch.full((1, 64, 64, 3), 128, dtype=torch.uint8))
    grey = 128 / 255
    expected = torch.tensor([(grey - 0.1) / 0.5, (grey - 0.2) / 0.25, (grey - 0.3) / 0.2])
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), expected)


def painted(network: MaskProposalNetwork, monkeypatch: pytest.MonkeyPatch, frames: Tensor) -> Proposals:
    """What a network that takes every white pixel of its input for the object proposes for frames."""

    def propose(pixels: Tensor, *, last_alone: bool) -> list[Proposals]:
        white = (pixels * network.std + network.mean).mean(1, keepdim=True)
        masks = torch.nn.functional.adaptive_avg_pool2d(white, pixels.shape[-1] // 4) - 0.5
        return [Proposals(20 * masks, torch.zeros(len(pixels), 1, 32), torch.zeros(len(pixels), 1))]

    monkeypatch.setattr(network, "propose", propose)
    return network(frames)


@pytest.mark.parametrize("name", [name for name, config in TINY_PROPOSALS.items() if name != "mask2former"])
@pytest.mark.parametrize(("height", "width"), [(72, 128), (128, 72), (64, 64), (96, 128)])
def test_masks_of_a_square_input_lie_where_the_object_is(
    name: str, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A white box touches the right and the lower border of the frame, where padding would begin."""
    network = build_mask_proposal(TINY_PROPOSALS[name], short_side=64)
    frames = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    frames[:, height // 2 :, width // 4 :] = 255
    proposals = painted(network, monkeypatch, frames)

    mask = encode_logits(proposals.mask_logits[0], (height, width)).to_dense()[0]
    expected = frames[0, :, :, 0].numpy() > 0
    wrong = mask != expected
    assert wrong.mean() < 0.04  # half a logit along two edges
    edge = np.zeros_like(wrong)  # 3 pixels to each side of the two edges
    edge[height // 2 - 3 : height // 2 + 3] = True
    edge[:, width // 4 - 3 : width // 4 + 3] = True
    assert not (wrong & ~edge).any()

    grid = (4, 4)
    guidance = instance_guidance(
        proposals.mask_logits, grid, guidance="logits", resampling="log_mean_probability"
    ).view(grid)
    assert (guidance[2:, 1:] > -0.3).all()
    assert (guidance[:2] < -1).all()
    assert (guidance[:, 0] < -1).all()
