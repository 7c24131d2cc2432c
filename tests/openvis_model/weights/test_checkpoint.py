import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from openvis_model.clip import build_clip
from openvis_model.config import InstFormerConfig
from openvis_model.inst_clip import InstClip
from openvis_model.inst_former import InstFormer
from openvis_model.options import LORA_TARGETS
from openvis_model.proposal_networks import NETWORKS
from openvis_model.weights.checkpoint import fingerprint, fold, load_checkpoint, save_checkpoint
from tests.networks import with_proposals


def test_round_trip_gives_the_same_instances(trained: InstFormer, checkpoint: Path, frames: Tensor) -> None:
    loaded = load_checkpoint(checkpoint)
    assert loaded.config == trained.config
    for a, b in zip(trained(frames), loaded(frames), strict=True):
        assert torch.equal(a.instance_tokens, b.instance_tokens)
        assert a.masks == b.masks
    texts = ["a photo of a red star."]
    assert torch.equal(trained.text_encoder(texts), loaded.text_encoder(texts))
    tokens, hidden = torch.randn(2, 192), torch.randn(2, 192)
    assert torch.equal(trained.rollout_tracker(tokens, hidden)[0], loaded.rollout_tracker(tokens, hidden)[0])


def test_the_folder_holds_what_it_says(checkpoint: Path) -> None:
    files = sorted(str(file.relative_to(checkpoint)) for file in checkpoint.rglob("*") if file.is_file())
    assert files == [
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "clip.safetensors",
        "config.json",
        "inst_clip.safetensors",
        "mask_proposal.safetensors",
        "rollout_tracker.safetensors",
    ]
    assert sum(file.stat().st_size for file in checkpoint.rglob("*")) < 25e6
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["checkpoint"]


def test_clip_is_stored_as_open_clip_has_it(trained: InstFormer, checkpoint: Path) -> None:
    """Training the adapters leaves CLIP's file as it was, and open_clip itself loads it."""
    clip = build_clip(trained.config.clip).eval()
    clip.load_state_dict(load_file(checkpoint / "clip.safetensors"))
    assert isinstance(trained.classifier, InstClip)
    fresh = InstFormer(trained.config, clip=clip)
    save_checkpoint(fresh, checkpoint.parent / "again")
    assert (checkpoint / "clip.safetensors").read_bytes() == (checkpoint.parent / "again/clip.safetensors").read_bytes()


def test_adapters_are_in_pefts_format(trained: InstFormer, checkpoint: Path, frames: Tensor) -> None:
    """peft itself puts the stored adapters on a CLIP that has none."""
    model = load_checkpoint(checkpoint)
    assert isinstance(model.classifier, InstClip)
    plain = model.classifier
    for block in plain.visual.transformer.resblocks:
        for name in LORA_TARGETS:
            setattr(block.attn, name, getattr(block.attn, name).get_base_layer())
    plain.visual = PeftModel.from_pretrained(plain.visual, checkpoint / "adapter").merge_and_unload()
    assert (model(frames)[0].instance_tokens - trained(frames)[0].instance_tokens).abs().max() < 1e-5


def test_fingerprint_depends_on_weights_and_config(trained: InstFormer, tmp_path: Path) -> None:
    first = save_checkpoint(trained, tmp_path / "a")
    assert save_checkpoint(load_checkpoint(tmp_path / "a"), tmp_path / "b") == first
    changed = load_checkpoint(tmp_path / "a")
    with torch.no_grad():
        next(changed.rollout_tracker.parameters())[0, 0] += 1e-6
    assert save_checkpoint(changed, tmp_path / "c") != first
    other = load_checkpoint(tmp_path / "a")
    other.config = replace(other.config, short_side=96)
    assert save_checkpoint(other, tmp_path / "d") != first


def test_another_classifier_on_the_same_checkpoint(checkpoint: Path, frames: Tensor) -> None:
    model = load_checkpoint(checkpoint, classifier="crop_clip")
    assert model.config.classifier == "crop_clip"
    assert model(frames)[0].instance_tokens.shape == (16, 128)
    save_checkpoint(model, checkpoint.parent / "crop")
    with pytest.raises(ValueError, match=r"'inst_clip' needs \['adapter/adapter_model', 'inst_clip'\]"):
        load_checkpoint(checkpoint.parent / "crop", classifier="inst_clip")


def rewrite(checkpoint: Path, **changes: object) -> None:
    """Changes the stored config as an editor would, fingerprint left alone."""
    stored = json.loads((checkpoint / "config.json").read_text())
    stored["config"] |= changes
    (checkpoint / "config.json").write_text(json.dumps(stored))


def test_a_config_that_contradicts_the_weights_is_refused(checkpoint: Path) -> None:
    rewrite(checkpoint, rollout_tracker={"kind": "gru", "token": "instance_query"})
    with pytest.raises(ValueError, match=r"rollout_tracker.*weight_hh \[192, 192\] instead of \[576, 192\]"):
        load_checkpoint(checkpoint)


def test_a_config_that_only_the_fingerprint_tells_from_the_saved_one_is_refused(checkpoint: Path) -> None:
    rewrite(checkpoint, short_side=96)
    with pytest.raises(ValueError, match="fingerprint"):
        load_checkpoint(checkpoint)


def test_a_fingerprint_that_is_no_text_is_refused(checkpoint: Path) -> None:
    stored = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(stored | {"fingerprint": 7}))
    with pytest.raises(ValueError, match=r"config\.json: fingerprint: expected text, got 7"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize(("name", "value"), [("r", 4), ("lora_alpha", 32), ("target_modules", ["k_proj"])])
def test_an_adapter_config_that_disagrees_is_named(checkpoint: Path, name: str, value: object) -> None:
    file = checkpoint / "adapter/adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    with pytest.raises(ValueError, match=rf"adapter_config\.json: {name}: .* disagrees with"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"r": 8}'])
def test_an_adapter_config_that_cannot_be_read_is_named(checkpoint: Path, content: str | None) -> None:
    file = checkpoint / "adapter/adapter_config.json"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(ValueError, match=r"adapter_config\.json: cannot be read"):
        load_checkpoint(checkpoint)


def test_weights_of_another_checkpoint_are_refused(checkpoint: Path, mini_config: InstFormerConfig) -> None:
    save_checkpoint(InstFormer(mini_config), checkpoint.parent / "other")
    shutil.copy(checkpoint.parent / "other/rollout_tracker.safetensors", checkpoint)
    with pytest.raises(ValueError, match="fingerprint"):
        load_checkpoint(checkpoint)


def test_a_number_of_queries_that_disagrees_is_named(trained: InstFormer, checkpoint: Path) -> None:
    queries = trained.config.mask_proposal.architecture | {"num_queries": 20}
    rewrite(checkpoint, mask_proposal={"mask2former": queries, "freeze_batch_norm": False})
    with pytest.raises(ValueError, match=r"num_queries: config.json says N = 20, mask_proposal.safetensors holds 16"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize("network", NETWORKS)
def test_damaged_proposals_of_each_network_are_named(
    network: str, mini_config: InstFormerConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    save_checkpoint(with_proposals(mini_config, network), folder)
    state = load_file(folder / "mask_proposal.safetensors")
    name = sorted(state)[-1]
    del state[name]
    save_file(state, folder / "mask_proposal.safetensors")
    with pytest.raises(ValueError, match=rf"mask_proposal\.safetensors: missing: {name}"):
        load_checkpoint(folder)


def test_damaged_files_are_named(checkpoint: Path) -> None:
    (checkpoint / "clip.safetensors").write_bytes((checkpoint / "clip.safetensors").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"clip\.safetensors: cannot be read"):
        load_checkpoint(checkpoint)
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json"):
        load_checkpoint(checkpoint)
    with pytest.raises(ValueError, match="not a checkpoint folder"):
        load_checkpoint(checkpoint.parent / "absent")


def test_nan_weights_are_refused(mini_config: InstFormerConfig, tmp_path: Path) -> None:
    model = InstFormer(mini_config)
    with torch.no_grad():
        model.rollout_tracker.predictor.bias_hh[0] = float("nan")
    with pytest.raises(ValueError, match=r"rollout_tracker.*NaN.*predictor\.bias_hh"):
        save_checkpoint(model, tmp_path / "diverged")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_and_nothing_half_is_left(
    trained: InstFormer, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="exists already"):
        save_checkpoint(trained, checkpoint)
    monkeypatch.setattr("openvis_model.weights.checkpoint.json.dumps", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("openvis_model.weights.checkpoint.model_fingerprint", lambda *_: "")
    with pytest.raises(ZeroDivisionError):
        save_checkpoint(trained, checkpoint.parent / "second")
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["checkpoint"]


@pytest.mark.usefixtures("as_user")
def test_a_folded_model_is_a_copy_that_finds_the_same_and_cannot_be_saved(
    trained: InstFormer, frames: Tensor, tmp_path: Path
) -> None:
    before, folded = trained(frames), fold(trained)
    assert folded.identity() == fingerprint(trained)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.zero_()
    for one, other in zip(before, folded(frames), strict=True):
        assert one.masks == other.masks
        assert torch.equal(one.query_index, other.query_index)
        for name in ("objectness", "instance_tokens", "queries"):
            assert torch.allclose(getattr(one, name), getattr(other, name), atol=1e-5), name
    with pytest.raises(ValueError, match="folded for inference and cannot be saved"):
        save_checkpoint(folded, tmp_path / "folded")
    with pytest.raises(ValueError, match="folded for inference already"):
        fold(folded)
