from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import EomtDinov3Config, EomtDinov3ForUniversalSegmentation

from openvis_model.config import InstFormerConfig
from openvis_model.eomt import Eomt
from openvis_model.inst_former import InstFormer
from openvis_model.mask_proposal import MaskProposalConfig
from openvis_model.proposal_networks import NETWORKS, build_mask_proposal, check_mask_proposal
from openvis_model.proposals import Proposals, collapse
from openvis_model.weights.checkpoint import save_checkpoint
from openvis_model.weights.folded_model import load
from openvis_model.weights.pretrained_proposals import load_mask_proposal
from tests.networks import TINY_EOMT, TINY_PROPOSALS, with_proposals


def test_there_is_a_small_one_of_each() -> None:
    assert TINY_PROPOSALS.keys() == NETWORKS.keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_each_is_behind_the_protocol(name: str) -> None:
    config = TINY_PROPOSALS[name]
    check_mask_proposal(config)
    network = build_mask_proposal(config, short_side=64).eval()
    frames = torch.randint(0, 256, (2, 48, 80, 3), dtype=torch.uint8)
    with torch.inference_mode():
        proposals, layers = network(frames), network.layers(frames)
        alone = network(frames[1:])
    assert (network.num_queries, network.query_width) == (7, 32) == (config.num_queries, proposals.queries.shape[-1])
    assert network.side in (None, 64)
    assert all(side % network.size_divisor == 0 for side in network.input_size(48, 80))
    assert len(layers) > 1
    assert torch.equal(layers[-1].mask_logits, proposals.mask_logits)
    assert (alone.mask_logits[0] - proposals.mask_logits[1]).abs().max() < 1e-4
    trained, backbone = set(network.trainable_parameters()), set(network.backbone().parameters())
    assert backbone & trained
    assert trained - backbone


@pytest.mark.parametrize("name", NETWORKS)
def test_each_runs_in_bfloat16(name: str, mini_config: InstFormerConfig, frames: torch.Tensor) -> None:
    model = with_proposals(mini_config, name)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(frames[:2])
    full = model(frames[:2])
    for one, other in zip(half, full, strict=True):
        assert one.instance_tokens.dtype == torch.float32
        assert (one.objectness - other.objectness).abs().max() < 0.05


@pytest.mark.parametrize("name", NETWORKS)
def test_each_trains_in_bfloat16(name: str) -> None:
    network = build_mask_proposal(TINY_PROPOSALS[name], short_side=64).train()
    network.anneal(0.4)
    with torch.autocast("cpu", torch.bfloat16):
        layers = network.layers(torch.randint(0, 256, (2, 48, 80, 3), dtype=torch.uint8))
    boxes = [each.boxes.square().sum() for each in layers if each.boxes is not None]
    sum(
        (each.mask_logits.float().square().sum() + each.objectness_logits.sum() for each in layers), sum(boxes)
    ).backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in network.trainable_parameters())


class Fourth(Eomt):
    """A network that is not listed: EoMT on DINOv3, as `transformers` runs it, and its last layer alone."""

    transformers_class = EomtDinov3ForUniversalSegmentation

    def propose(self, pixels: torch.Tensor, *, last_alone: bool) -> list[Proposals]:
        output = self.network(pixels)
        queries = output.last_hidden_state[:, : self.num_queries]
        return [Proposals(output.masks_queries_logits, queries, collapse(output.class_queries_logits))]


def test_a_fourth_is_one_class_and_one_line(
    mini_config: InstFormerConfig, frames: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a folder of `transformers` to a checkpoint, inference and both stages' parameters."""
    monkeypatch.setitem(NETWORKS, "eomt_dinov3", Fourth)
    values = {name: value for name, value in TINY_EOMT.items() if name != "mlp_ratio"} | {"intermediate_size": 64}
    EomtDinov3ForUniversalSegmentation(EomtDinov3Config(**values)).save_pretrained(tmp_path / "public")
    proposals = load_mask_proposal(tmp_path / "public")
    model = InstFormer(replace(mini_config, mask_proposal=proposals.config), proposals=proposals)
    save_checkpoint(model, tmp_path / "model")
    for one, other in zip(model(frames[:2]), load(tmp_path / "model")(frames[:2]), strict=True):
        assert one.masks == other.masks
    assert {name.partition(".")[0] for name in model.train_only(1)} == {"mask_proposal", "classifier"}


def test_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown network 'detr'; choose from \('mask2former', 'eomt', 'rf_detr'\)"):
        check_mask_proposal(MaskProposalConfig(network="detr", architecture={}))
