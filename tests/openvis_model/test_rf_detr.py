from dataclasses import replace
from typing import Any

import pytest
import torch

from openvis_model.proposal_networks import check_mask_proposal
from openvis_model.rf_detr import RfDetr
from tests.networks import TINY_PROPOSALS, TINY_RF_DETR, tiny_transformers

CONFIG = TINY_PROPOSALS["rf_detr"]
BACKBONE = TINY_RF_DETR["backbone_config"]


@pytest.fixture
def network() -> RfDetr:
    return RfDetr(CONFIG, short_side=64, network=tiny_transformers("rf_detr")).eval()


def test_proposals_are_those_of_transformers(network: RfDetr) -> None:
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network.network(pixels)
        (last,), layers = network.propose(pixels, last_alone=True), network.propose(pixels, last_alone=False)
    for found in (last, layers[-1]):
        assert (found.mask_logits - expected.pred_masks).abs().max() < 1e-5
        assert (found.queries - expected.last_hidden_state).abs().max() < 1e-5
        assert (found.objectness - expected.logits.sigmoid().amax(-1)).abs().max() < 1e-6
    assert len(layers) == 3
    assert (last.boxes - expected.pred_boxes).abs().max() < 1e-5
    assert (layers[0].mask_logits - expected.enc_outputs_mask_logits).abs().max() < 1e-5
    assert (layers[1].queries - expected.intermediate_hidden_states[0]).abs().max() < 1e-5


def test_it_is_trained_as_it_infers(network: RfDetr) -> None:
    frames = torch.randint(0, 256, (2, 40, 64, 3), dtype=torch.uint8)
    inferred = network(frames)
    assert network.train().training
    torch.testing.assert_close(network(frames).mask_logits, inferred.mask_logits)


def test_a_loss_reaches_what_is_trained(network: RfDetr) -> None:
    network.train()
    layers = network.layers(torch.randint(0, 256, (2, 40, 64, 3), dtype=torch.uint8))
    for each in layers:
        (each.mask_logits.square().sum() + each.objectness_logits.sum() + each.boxes.square().sum()).backward(
            retain_graph=True
        )
    trained = set(network.trainable_parameters())
    assert {name for name, each in network.named_parameters() if (each.grad is None) == (each in trained)} == set()
    left = {name.removeprefix("network.") for name, each in network.named_parameters() if each not in trained}
    assert "model.model.enc_output.1.weight" in left
    assert "model.model.backbone.backbone.encoder.layer.3.norm1.weight" in left  # maps are of stage 1 and 3
    assert "model.model.enc_out_bbox_embed.1.layers.0.weight" in left
    assert "model.bbox_embed.layers.0.weight" not in left
    queries = network.network.model.model.query_feat.weight.grad
    assert (queries[:7] != 0).any()
    assert (queries[7:] == 0).all()


def test_its_side_may_be_that_of_its_own_preprocessing() -> None:
    """Position embeddings are for 64 pixels."""
    larger = RfDetr(replace(CONFIG, image_size=96), short_side=64, network=tiny_transformers("rf_detr")).eval()
    assert larger.size_divisor == 16
    assert larger.input_size(36, 64) == (96, 96)
    with torch.inference_mode():
        assert larger(torch.zeros(1, 36, 64, 3, dtype=torch.uint8)).mask_logits.shape == (1, 7, 24, 24)


@pytest.mark.parametrize(
    ("change", "side", "message"),
    [
        ({}, 72, r"image_size: expected a multiple of patch_size · num_windows \(16\), got 72"),
        ({"num_queries": 65}, 64, r"num_queries: expected at most the number of patches \(64\), got 65"),
        ({"backbone_config": BACKBONE | {"image_size": [64, 64]}}, 0, "expected a number of pixels each"),
        ({"d_modle": 32}, 0, "did you mean 'd_model'"),
    ],
)
def test_bad_values_are_refused(change: dict[str, Any], side: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_mask_proposal(replace(CONFIG, architecture=TINY_RF_DETR | change, image_size=side))
