from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.config import BACKBONES, InstFormerConfig, paper
from openvis_model.folded.mask_proposal import FoldedMaskProposal
from openvis_model.inst_former import InstFormer
from openvis_model.mask2former import Mask2Former
from openvis_model.mask_proposal import MaskProposalConfig
from openvis_model.proposal_networks import check_mask_proposal
from openvis_model.weights.pretrained_proposals import load_mask_proposal
from tests.networks import OUT, TINY, TINY_BACKBONES, TINY_PROPOSALS, trained_norms


@pytest.mark.parametrize("backbone", TINY_BACKBONES)
def test_a_closed_set_checkpoint_works_untouched(backbone: str, tmp_path: Path) -> None:
    """A transformers model on disk gives the same masks here, and objectness is its 1 - p(no object)."""
    config = MaskProposalConfig(
        network="mask2former", architecture=TINY | {"backbone_config": TINY_BACKBONES[backbone] | OUT}
    )
    reference = Mask2FormerForUniversalSegmentation(config.build()).eval()
    reference.save_pretrained(tmp_path / "mask2former")
    loaded = load_mask_proposal(tmp_path / "mask2former")
    network = Mask2Former(loaded.config, short_side=64, network=loaded.network).eval()

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
    norm = network.network.model.transformer_module.decoder.layernorm
    with torch.inference_mode():
        queries = norm(expected.transformer_decoder_last_hidden_state)
    assert (proposals.queries - queries).abs().max() < 1e-5


def test_the_last_norm_of_swin_is_not_trained() -> None:
    """Feature maps bypass it, so that it has no gradient."""
    network = Mask2Former(TINY_PROPOSALS["mask2former"], short_side=64)
    network.requires_grad_(False)
    trained = set(network.trainable_parameters())
    left = {name.rpartition("encoder.")[2] for name, each in network.named_parameters() if each not in trained}
    assert left == {"swin.layernorm.weight", "swin.layernorm.bias"}
    assert not any(parameter.requires_grad for parameter in network.parameters())


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
    config = replace(mini_config.mask_proposal, freeze_batch_norm=True)
    network = Mask2Former(config, short_side=96).train()
    assert network.trainable_parameters()
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


OTHER_BACKBONES: dict[str, dict[str, Any]] = {
    "convnext": {"num_stages": 4, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1]},
    "pvt_v2": {"hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]},
}


def with_backbone(**values: Any) -> MaskProposalConfig:
    architecture = TINY | {"backbone_config": values | OUT}
    return MaskProposalConfig(network="mask2former", architecture=architecture)


@pytest.mark.parametrize("backbone", OTHER_BACKBONES)
def test_backbones_that_only_transformers_has(backbone: str) -> None:
    """They train, whatever their feature maps bypass, and the folded network runs them as they are."""
    config = with_backbone(model_type=backbone, **OTHER_BACKBONES[backbone])
    check_mask_proposal(config)
    network = Mask2Former(config, short_side=64)
    trained_norms(network.network)
    network = network.double().eval()
    frames = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8)
    layers = network.layers(frames)
    assert layers[-1].mask_logits.shape == (1, 7, 16, 24)
    total = sum(layer.mask_logits.square().sum() + layer.objectness_logits.sum() for layer in layers)
    total.backward()
    assert [each.shape for each in network.trainable_parameters() if each.grad is None] == []
    folded = FoldedMaskProposal(config.build().to_dict(), network.network.state_dict(), short_side=64)
    torch.testing.assert_close(folded(frames).mask_logits, layers[-1].mask_logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"model_type": "dinov2", "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2},
            "it makes maps of",
        ),
        ({"model_type": "focalnet"}, r"makes maps of \[8, 4, 2, 2\], Mask2Former needs \[16, 8, 4, 2\]"),
        ({"model_type": "convnext", "depths": [1, 1, 1]}, "cannot build this backbone|refuses"),
    ],
)
def test_backbones_without_four_maps_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_mask_proposal(with_backbone(**values))


def test_bad_values_are_refused() -> None:
    tiny = TINY_PROPOSALS["mask2former"]
    with pytest.raises(ValueError, match=r"mask_proposal\.mask2former\.dropout: expected 0, got 0\.1"):
        check_mask_proposal(replace(tiny, architecture=tiny.architecture | {"dropout": 0.1}))
    with pytest.raises(ValueError, match=r"decoder_layers: expected at least 4, .* got 3"):
        check_mask_proposal(replace(tiny, architecture=tiny.architecture | {"decoder_layers": 3}))
    with pytest.raises(ValueError, match="'vgg'.*resnet50"):
        paper("vgg")
    assert "resnet50" in BACKBONES
