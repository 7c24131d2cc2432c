"""Checkpoints with each kind of CLIP: what is saved is what is loaded, for training and for inference."""

import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from openvis_model.clip import build_clip
from openvis_model.config import InstFormerConfig
from openvis_model.inst_clip import InstClip
from openvis_model.inst_former import InstFormer
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.vocabulary import Vocabulary
from openvis_model.weights.checkpoint import fingerprint, fold, load_checkpoint, save_checkpoint
from openvis_model.weights.folded_model import load
from openvis_model.weights.inst_clip import load_inst_clip
from openvis_model.weights.light_model import load_light_model
from tests.clips import random_clip, small_model
from tests.networks import random_adapters
from tests.words import NAMES

NAMED = Vocabulary.of_dataset(NAMES)


def trained_model(config: InstFormerConfig) -> InstFormer:
    model = InstFormer(config, clip=random_clip(config.clip)).eval()
    assert isinstance(model.classifier, InstClip)
    random_adapters(model.classifier)
    return model


@pytest.fixture(params=["eva02", "pe", "siglip"])
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> InstFormer:
    return trained_model(small_model(request.param, tmp_path / "tokenizer"))


def test_every_way_of_loading_gives_the_same_instances_and_names(
    trained: InstFormer, frames: Tensor, tmp_path: Path
) -> None:
    """Adapters that are merged round differently; the tokenizer is that of the checkpoint."""
    identity = save_checkpoint(trained, tmp_path / "model")
    shutil.rmtree(tmp_path / "tokenizer", ignore_errors=True)
    expected, names = trained(frames[:2]), embed_vocabulary(NAMED, trained.text_encoder)
    loaded = load_checkpoint(tmp_path / "model")
    assert fingerprint(loaded) == identity
    for one, other in zip(loaded(frames[:2]), expected, strict=True):
        assert torch.equal(one.instance_tokens, other.instance_tokens)
    for model in (load(tmp_path / "model"), fold(trained)):
        assert model.fingerprint == identity
        for one, other in zip(model(frames[:2]), expected, strict=True):
            torch.testing.assert_close(one.instance_tokens, other.instance_tokens, rtol=0, atol=1e-5)
    for encoder in (loaded.text_encoder, load_light_model(tmp_path / "model").text_encoder):
        embedded = embed_vocabulary(NAMED, encoder)
        torch.testing.assert_close(embedded.embeddings, names.embeddings, rtol=0, atol=1e-6)
        assert (embedded.logit_scale, embedded.logit_bias) == (names.logit_scale, names.logit_bias)


def test_clip_is_stored_as_open_clip_has_it(trained: InstFormer, tmp_path: Path) -> None:
    save_checkpoint(trained, tmp_path / "model")
    architecture = {name: value for name, value in trained.config.clip.architecture.items() if name != "custom_text"}
    state = load_file(tmp_path / "model/clip.safetensors")
    open_clip.CustomTextCLIP(**architecture).load_state_dict(state)
    clip = build_clip(trained.config.clip)
    clip.load_state_dict(state)
    save_checkpoint(InstFormer(trained.config, clip=clip), tmp_path / "again")
    assert (tmp_path / "model/clip.safetensors").read_bytes() == (tmp_path / "again/clip.safetensors").read_bytes()


def test_crops_through_each_clip(trained: InstFormer, frames: Tensor, tmp_path: Path) -> None:
    save_checkpoint(trained, tmp_path / "model")
    crops = load_checkpoint(tmp_path / "model", classifier="crop_clip")
    save_checkpoint(crops, tmp_path / "crops")
    masks, index = torch.randn(1, 3, 24, 32), torch.arange(3)[None]
    with torch.inference_mode():
        tokens = crops.classifier(frames[:1], masks, index)
        assert tokens.shape == (1, 3, 48)
        torch.testing.assert_close(load(tmp_path / "crops").classifier(frames[:1], masks, index), tokens)


def test_adapters_of_another_config_are_named(tmp_path: Path) -> None:
    model = trained_model(small_model("eva02", tmp_path))
    assert isinstance(model.classifier, InstClip)
    tokens = {name: p for name, p in model.classifier.state_dict().items() if not name.startswith("visual.")}
    with pytest.raises(ValueError, match=r"model/adapter: names or shapes differ.*trunk\.blocks\.0\.attn\.q_proj"):
        load_inst_clip(model.classifier, {"inst_clip": tokens, "adapter/adapter_model": {}}, Path("model"))


def test_a_tokenizer_that_was_changed_is_refused(tmp_path: Path) -> None:
    save_checkpoint(trained_model(small_model("siglip", tmp_path / "tokenizer")), tmp_path / "model")
    file = tmp_path / "model/tokenizer/tokenizer.json"
    file.write_text(file.read_text().replace('"star"', '"tree"'))
    with pytest.raises(ValueError, match="saved together"):
        load(tmp_path / "model")


def test_merged_adapters_leave_no_others(tmp_path: Path) -> None:
    model = trained_model(small_model("pe", tmp_path))
    save_checkpoint(model, tmp_path / "model")
    assert isinstance(model.classifier, InstClip)
    attention = model.classifier.visual.trunk.blocks[0].attn
    before = attention.q_proj.base_layer.weight.clone()
    model.classifier.merge_adapters()
    assert not torch.equal(attention.q_proj.base_layer.weight, before)
