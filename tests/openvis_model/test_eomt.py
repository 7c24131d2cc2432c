from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import EomtForUniversalSegmentation

from openvis_model.eomt import Eomt
from openvis_model.proposal_networks import check_mask_proposal
from tests.networks import TINY_EOMT, TINY_PROPOSALS, tiny_transformers

CONFIG = TINY_PROPOSALS["eomt"]


def eomt(*shares: float) -> Eomt:
    theirs = tiny_transformers("eomt")
    theirs.attn_mask_probs.copy_(torch.tensor(shares))
    with torch.no_grad():
        theirs.mask_head.fc3.bias.zero_()
    return Eomt(CONFIG, short_side=64, network=theirs).eval()


@pytest.mark.parametrize("shares", [(0.0, 0.0), (1.0, 1.0)])
def test_proposals_are_those_of_transformers(shares: tuple[float, float]) -> None:
    network = eomt(*shares)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network.network(pixels)
        (*_, last), layers = network.propose(pixels, last_alone=True), network.propose(pixels, last_alone=False)
    assert 0.05 < (expected.masks_queries_logits > 0).float().mean() < 0.95
    for found in (last, layers[-1]):
        assert (found.mask_logits - expected.masks_queries_logits).abs().max() < 1e-5
        assert (found.queries - expected.last_hidden_state[:, :7]).abs().max() < 1e-5
        no_object = expected.class_queries_logits.softmax(-1)[..., -1]
        assert (found.objectness - (1 - no_object)).abs().max() < 1e-6
    assert len(layers) == 3


def test_masks_steer_attention() -> None:
    pixels = torch.randn(1, 3, 64, 64)
    torch.manual_seed(0)
    free = eomt(0, 0)
    torch.manual_seed(0)
    masked = eomt(1, 1)
    one, other = (network.propose(pixels, last_alone=True)[-1] for network in (free, masked))
    assert (one.queries - other.queries).abs().max() > 1e-3


def test_training_computes_the_losses_of_transformers_layers() -> None:
    """Its own loss sums over the same layers as ours are: here, of masks that are all zero."""
    network = eomt(1, 1).train()
    network.network.train()
    seen: list[torch.Tensor] = []
    network.network.get_loss_dict = lambda masks_queries_logits, **_: seen.append(masks_queries_logits) or {}  # type: ignore[func-returns-value]
    pixels = torch.randn(2, 3, 64, 64)
    network.network(pixels, mask_labels=[torch.zeros(1, 64, 64)] * 2, class_labels=[torch.zeros(1).long()] * 2)
    for layer, theirs in zip(network.propose(pixels, last_alone=False), seen, strict=True):
        assert (layer.mask_logits - theirs).abs().max() < 1e-5


def test_masks_are_annealed_by_hand() -> None:
    """Two blocks, four parts: the first loses its masks in the second part, the other in the third."""
    network = eomt(1, 1)
    expected = {0.25: (1, 1), 0.375: (0.5**0.9, 1), 0.5: (0, 1), 0.625: (0, 0.5**0.9), 0.75: (0, 0), 1.0: (0, 0)}
    for progress, shares in expected.items():
        network.anneal(progress)
        assert network.network.attn_mask_probs.tolist() == pytest.approx(shares), progress


def test_shares_are_read_from_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network, pixels, reads = eomt(0, 0), torch.zeros(1, 3, 64, 64), list[torch.Tensor]()
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: reads.append(tensor) or tolist(tensor))
    for _ in range(2):
        network.propose(pixels, last_alone=True)
    assert len(reads) == 1
    network.network.attn_mask_probs.fill_(0.5)
    network.propose(pixels, last_alone=True)
    assert len(reads) == 2
    network.network.attn_mask_probs = torch.ones(2)
    assert network._shares() == [1, 1]
    with torch.inference_mode():
        network.network.attn_mask_probs = torch.zeros(2)
        assert network._shares() == [0, 0]
        network.network.attn_mask_probs.fill_(0.5)
        assert network._shares() == [0.5, 0.5]


def test_masks_do_not_come_back() -> None:
    """Weights that were trained to the end need none, and their fine-tuning begins with none."""
    network = eomt(0, 0)
    network.anneal(0.0)
    assert network.network.attn_mask_probs.tolist() == [0, 0]


def test_training_masks_a_share_of_the_queries_and_inference_is_not_random() -> None:
    network = eomt(0.5, 0.5)
    hidden = torch.zeros(40, 7 + 1 + 2 + 64, 32)
    logits = torch.full((40, 7, 16, 16), -1.0)
    masked = (network.train()._attention_mask(logits, hidden, 0.5)[:, 0, :7, -1] < 0).float().mean()
    assert 0.4 < masked < 0.6
    assert (network.eval()._attention_mask(logits, hidden, 0.6)[:, 0, :7, -1] < 0).all()
    assert (network._attention_mask(logits, hidden, 0.4) == 0).all()


def test_every_parameter_is_trained() -> None:
    network = eomt(0, 0).train()
    layers = network.layers(torch.randint(0, 256, (2, 40, 64, 3), dtype=torch.uint8))
    sum((each.mask_logits.square().sum() + each.objectness_logits.sum()) for each in layers).backward()
    assert [name for name, each in network.named_parameters() if each.grad is None] == []
    assert len(network.trainable_parameters()) == len(list(network.parameters()))
    backbone = set(network.backbone().parameters())
    rest = {name.split(".")[1] for name, each in network.named_parameters() if each not in backbone}
    assert rest == {"query", "upscale_block", "mask_head", "class_predictor"}


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(360, 640, (36, 64)), (640, 360, (64, 36)), (480, 854, (36, 64)), (50, 50, (64, 64)), (10, 4000, (4, 64))],
)
def test_a_frame_fills_whole_logits_of_the_square(height: int, width: int, expected: tuple[int, int]) -> None:
    network = eomt(0, 0)
    assert network.size_divisor == 4
    assert network.input_size(height, width) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 60}, r"eomt\.image_size: expected a multiple of patch_size \(8\), got 60"),
        ({"num_blocks": 9}, r"eomt\.num_blocks: expected 1 to num_hidden_layers \(4\), got 9"),
        ({"num_querys": 9}, "did you mean 'num_queries'"),
        ({"num_queries": 0}, "num_queries: expected at least 1"),
    ],
)
def test_bad_values_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_mask_proposal(replace(CONFIG, architecture=TINY_EOMT | change))


def test_its_input_has_one_size() -> None:
    with pytest.raises(ValueError, match=r"image_size: got 128, but the input of eomt has .* leave it out"):
        check_mask_proposal(replace(CONFIG, image_size=128))


def test_patches_of_14_pixels() -> None:
    """Two logits for 7 pixels: the frame ends where a logit does."""
    config = replace(CONFIG, architecture=TINY_EOMT | {"image_size": 56, "patch_size": 14, "num_upscale_blocks": 2})
    network = Eomt(config, short_side=64, network=EomtForUniversalSegmentation(config.build())).eval()
    assert network.size_divisor == 7
    with torch.inference_mode():
        proposals = network(torch.zeros(1, 30, 56, 3, dtype=torch.uint8))
    assert network.input_size(30, 56) == (28, 56)
    assert proposals.mask_logits.shape == (1, 7, 8, 16)
