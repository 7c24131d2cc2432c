import shutil
from pathlib import Path

import pytest
import torch
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.clip import ClipConfig
from openvis_model.hub_tokenizer import HubTokenizer
from openvis_model.inst_clip import InstClip
from openvis_model.inst_former import InstFormer
from openvis_model.weights.assembly import assemble
from openvis_model.weights.checkpoint import fingerprint, save_checkpoint
from openvis_model.weights.pretrained import load_clip
from tests.clips import small_model
from tests.hub import CLIP, CLIP_WEIGHTS, COMMIT, PROPOSAL_WEIGHTS, PROPOSALS
from tests.networks import tiny_transformers


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
    network = model.mask_proposal.network.eval()
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
    with pytest.raises(ValueError, match=f"{PROPOSAL_WEIGHTS} are of another model .* give the weights of one"):
        assemble(proposals, ClipConfig(model="ViT-B-32"), proposals / PROPOSAL_WEIGHTS, short_side=64, quick_gelu=False)
    assert assemble(proposals, ClipConfig(model="ViT-B-32"), clip, short_side=64, quick_gelu=False)


def test_the_tokenizer_of_a_checkpoint_comes_with_its_clip(tmp_path: Path) -> None:
    """The folder or the repository that it was fetched from may be gone."""
    config = small_model("siglip", tmp_path / "tokenizer")
    save_checkpoint(InstFormer(config), tmp_path / "made")
    shutil.rmtree(tmp_path / "tokenizer")
    tiny_transformers("mask2former").save_pretrained(tmp_path / "proposals")
    for clip in (tmp_path / "made", tmp_path / "made/clip.safetensors"):
        model = assemble(tmp_path / "proposals", config.clip, clip, short_side=64)
        assert isinstance(model.text_encoder.tokenizer, HubTokenizer)
        assert model.text_encoder.tokenizer.encode("star")
