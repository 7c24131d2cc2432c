from pathlib import Path

import pytest
import torch
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.config import BACKBONES, InstFormerConfig, paper
from openvis_model.inst_former import InstFormer
from openvis_model.mask_proposal import MaskProposalConfig, MaskProposalNetwork
from openvis_model.weights.pretrained import load_mask2former
from tests.networks import OUT, TINY, TINY_BACKBONES


@pytest.mark.parametrize("backbone", TINY_BACKBONES)
def test_a_closed_set_checkpoint_works_untouched(backbone: str, tmp_path: Path) -> None:
    """A transformers model on disk gives the same masks here, and objectness is its 1 - p(no object)."""
    config = MaskProposalConfig(mask2former=TINY | {"backbone_config": TINY_BACKBONES[backbone] | OUT})
    reference = Mask2FormerForUniversalSegmentation(config.build()).eval()
    reference.save_pretrained(tmp_path / "mask2former")
    network = MaskProposalNetwork(config, short_side=64, mask2former=load_mask2former(tmp_path / "mask2former")).eval()

    frames = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    with torch.inference_mode():
        proposals = network(frames)
        mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        expected = reference((frames.permute(0, 3, 1, 2) / 255 - mean) / std)
    assert proposals.mask_logits.shape == (2, 7, 16, 24)
    assert (proposals.mask_logits - expected.masks_queries_logits).abs().max() < 1e-5
    no_object = expected.class_queries_logits.softmax(-1)[..., -1]
    assert (proposals.objectness - (1 - no_object)).abs().max() < 1e-6
    norm = network.mask2former.model.transformer_module.decoder.layernorm
    with torch.inference_mode():
        queries = norm(expected.transformer_decoder_last_hidden_state)
    assert (proposals.queries - queries).abs().max() < 1e-5


def test_every_decoder_layer_proposes(mini_model: InstFormer, frames: torch.Tensor) -> None:
    with torch.inference_mode():
        layers = mini_model.mask_proposal.layers(frames)
        result = mini_model.mask_proposal(frames)
    assert len(layers) == 4
    assert torch.equal(layers[-1].mask_logits, result.mask_logits)
    assert not torch.equal(layers[0].queries, result.queries)


def test_frames_are_independent(mini_model: InstFormer, frames: torch.Tensor) -> None:
    with torch.inference_mode():
        together, alone = mini_model.mask_proposal(frames), mini_model.mask_proposal(frames[2:3])
    assert (together.mask_logits[2:3] - alone.mask_logits).abs().max() < 1e-4


def test_frozen_batch_norm_keeps_its_statistics(mini_config: InstFormerConfig) -> None:
    config = MaskProposalConfig(mask2former=mini_config.mask_proposal.mask2former, freeze_batch_norm=True)
    network = MaskProposalNetwork(config, short_side=96).train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers() if "running" in name}
    network(torch.randint(0, 256, (2, 96, 96, 3), dtype=torch.uint8))
    assert before
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers() if "running" in name)


@pytest.mark.parametrize(("backbone", "millions"), [("resnet50", 44), ("swin_tiny", 47), ("swin_small", 69)])
def test_paper_preset_has_the_published_size(backbone: str, millions: int) -> None:
    """Parameters of Mask2Former for COCO instances (Cheng et al. 2022, Table 1)."""
    with torch.device("meta"):
        network = Mask2FormerForUniversalSegmentation(paper(backbone).mask_proposal.build())
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6) == millions
    assert network.config.num_queries == 100
    assert network.config.hidden_dim == 256
    assert network.class_predictor.out_features == 81


def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match="dropout"):
        MaskProposalConfig(mask2former=TINY | {"dropout": 0.1}).build()
    with pytest.raises(ValueError, match="'vgg'.*resnet50"):
        paper("vgg")
    assert "resnet50" in BACKBONES
