from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from openvis_model.clip import ClipConfig
from openvis_model.config import BACKBONES, paper
from openvis_model.inst_clip import InstClip
from openvis_model.weights.assembly import assemble, describe
from openvis_model.weights.checkpoint import fingerprint
from openvis_model.weights.pretrained import load_clip
from tests.hub import CLIP, CLIP_WEIGHTS, COMMIT, PROPOSAL_WEIGHTS, PROPOSALS
from tests.networks import OUT, TINY, TINY_BACKBONES


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_published_network_is_described_as_the_preset(backbone: str) -> None:
    preset = paper(backbone).mask_proposal
    described = describe(preset.build())
    assert Mask2FormerConfig.from_dict(described).to_dict() == preset.build().to_dict()
    given = {name: value for name, value in described.items() if name != "backbone_config"}
    assert given.items() <= preset.mask2former.items()


def test_numbers_that_leave_no_trace_in_shapes_are_described() -> None:
    values: dict[str, Any] = TINY | {
        "backbone_config": TINY_BACKBONES["swin"] | OUT | {"layer_norm_eps": 1e-6, "path_norm": True},
        "id2label": {"0": "person", "1": "bicycle"},
    }
    described = describe(Mask2FormerConfig.from_dict(values))
    assert described["backbone_config"]["layer_norm_eps"] == 1e-6
    assert "path_norm" not in described["backbone_config"]  # an unknown field, which published files have
    assert "id2label" not in described


def snapshot(cache: Path, repo: str) -> Path:
    return cache / f"models--{repo.replace('/', '--')}" / "snapshots" / COMMIT


def test_the_parts_are_those_that_were_published(offline: Path) -> None:
    """And what no one published is the same each time: it is part of the fingerprint."""
    folder, config, tag = snapshot(offline, PROPOSALS), ClipConfig(model="ViT-B-32"), "datacomp_xl_s13b_b90k"
    torch.manual_seed(1)
    model = assemble(folder, config, tag, short_side=64)
    torch.manual_seed(2)
    assert fingerprint(assemble(folder, config, tag, short_side=64)) == fingerprint(model)
    source = Mask2FormerForUniversalSegmentation.from_pretrained(folder)
    pixels = torch.randn(1, 3, 64, 96)
    network = model.mask_proposal.mask2former.eval()
    assert torch.equal(network(pixels).masks_queries_logits, source.eval()(pixels).masks_queries_logits)
    clip = load_clip(config, tag)
    assert isinstance(model.classifier, InstClip)
    class_token = clip.visual.class_embedding + clip.visual.positional_embedding[0]
    assert torch.equal(model.classifier.instance_tokens[3], class_token)
    assert torch.equal(model.text_encoder.state_dict()["text_projection"], clip.text_projection)


def test_weights_of_something_else_are_named(offline: Path) -> None:
    clip = snapshot(offline, CLIP) / CLIP_WEIGHTS
    with pytest.raises(ValueError, match="expected a transformers folder with a config.json"):
        assemble(snapshot(offline, CLIP), ClipConfig(model="ViT-B-32"), "datacomp_xl_s13b_b90k", short_side=64)
    proposals = snapshot(offline, PROPOSALS)
    with pytest.raises(ValueError, match=f"clip weights {proposals / PROPOSAL_WEIGHTS}: missing: "):
        assemble(proposals, ClipConfig(model="ViT-B-32"), proposals / PROPOSAL_WEIGHTS, short_side=64, quick_gelu=False)
    assert assemble(proposals, ClipConfig(model="ViT-B-32"), clip, short_side=64, quick_gelu=False)
