import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.clip import ClipConfig, build_clip
from openvis_model.config import InstFormerConfig, mini
from openvis_model.inst_clip import InstClip
from openvis_model.inst_former import InstFormer
from openvis_model.weights import load_checkpoint, load_clip, load_mask2former, save_checkpoint
from tests.conftest import WORDS


@pytest.fixture(scope="module")
def trained(mini_config: InstFormerConfig) -> InstFormer:
    """A model whose adapters, tokens and tracker have left their start."""
    torch.manual_seed(4)
    model = InstFormer(mini_config).eval()
    with torch.no_grad():
        for parameter in model.classifier.trainable_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture
def checkpoint(trained: InstFormer, tmp_path: Path) -> Path:
    save_checkpoint(trained, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


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
    plain = model.classifier.fold_for_inference()  # the structure without adapters
    clip_state = load_file(checkpoint / "clip.safetensors")
    for block, layer in zip(plain.visual.transformer.resblocks, range(4), strict=True):
        fused = clip_state[f"visual.transformer.resblocks.{layer}.attn.in_proj_weight"].chunk(3)
        block.attn.q_proj.weight.data, block.attn.v_proj.weight.data = fused[0].clone(), fused[2].clone()
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
    other.config = replace(other.config, short_side=128)
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
    rewrite(checkpoint, short_side=128)
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
    queries = trained.config.mask_proposal.mask2former | {"num_queries": 20}
    rewrite(checkpoint, mask_proposal={"mask2former": queries, "freeze_batch_norm": False})
    with pytest.raises(ValueError, match=r"num_queries: config.json says N = 20, mask_proposal.safetensors holds 16"):
        load_checkpoint(checkpoint)


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


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("rollout_tracker.safetensors", "predictor.bias_hh"),
        ("adapter/adapter_model.safetensors", "transformer.resblocks.0.attn.q_proj.lora_B.weight"),
    ],
)
def test_nan_weights_in_a_file_are_refused(checkpoint: Path, file: str, name: str) -> None:
    state = load_file(checkpoint / file)
    next(tensor for key, tensor in state.items() if key.endswith(name)).fill_(float("nan"))
    save_file(state, checkpoint / file)
    with pytest.raises(ValueError, match=rf"{file.split('/')[0]}.*NaN.*{name}"):
        load_checkpoint(str(checkpoint))


def test_nothing_is_overwritten_and_nothing_half_is_left(
    trained: InstFormer, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="exists already"):
        save_checkpoint(trained, checkpoint)
    monkeypatch.setattr("openvis_model.weights.json.dumps", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("openvis_model.weights._fingerprint", lambda *_: "")
    with pytest.raises(ZeroDivisionError):
        save_checkpoint(trained, checkpoint.parent / "second")
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["checkpoint"]


def test_a_folded_model_cannot_be_saved(checkpoint: Path) -> None:
    model = load_checkpoint(checkpoint)
    assert isinstance(model.classifier, InstClip)
    model.classifier.fold_for_inference()
    with pytest.raises(ValueError, match="folded"):
        save_checkpoint(model, checkpoint.parent / "folded")


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_clip_from_a_local_file(tmp_path: Path, ending: str) -> None:
    config = mini(WORDS).clip
    source = build_clip(config)
    file = tmp_path / f"clip.{ending}"
    state = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    save_file(state, file) if ending == "safetensors" else torch.save(state, file)
    loaded = load_clip(config, str(file))
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in state.items())


def test_clip_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    config = mini(WORDS).clip
    state = {name: tensor.clone() for name, tensor in build_clip(config).state_dict().items()}
    state["visual.extra"] = torch.zeros(1)
    state["text_projection"] = torch.zeros(3, 3)
    del state["logit_scale"]
    save_file(state, tmp_path / "clip.safetensors")
    with pytest.raises(ValueError, match=r"missing: logit_scale; unexpected: visual\.extra; .*projection \[3, 3\]"):
        load_clip(config, str(tmp_path / "clip.safetensors"))


def test_clip_pickles_with_code_are_refused(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harmed",))

    (tmp_path / "clip.pt").write_bytes(pickle.dumps({"state_dict": Harm()}))
    with pytest.raises(ValueError, match=r"clip\.pt"):
        load_clip(mini(WORDS).clip, str(tmp_path / "clip.pt"))
    assert not (tmp_path / "harmed").exists()


def test_torchscript_is_refused_with_a_safe_remedy(tmp_path: Path) -> None:
    file = tmp_path / "ViT-B-32.pt"
    torch.jit.script(torch.nn.Linear(1, 1)).save(file)
    with pytest.raises(ValueError, match=r"TorchScript.*open_clip's tag.*safetensors"):
        load_clip(mini(WORDS).clip, file)


@pytest.mark.parametrize("content", [b"", b"PK no zip", pickle.dumps([1])])
def test_other_clip_files_are_refused_with_a_safe_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"clip\.pt holds no plain state dict") as error:
        load_clip(mini(WORDS).clip, tmp_path / "clip.pt")
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        ("ViT-B-32", "openai", "with QuickGELU.*use model 'ViT-B-32-quickgelu'"),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "no file and no tag"),
        ("ViT-B-32", "nowhere", "no file and no tag of 'ViT-B-32'; tags:.*openai"),
    ],
)
def test_tags_that_do_not_fit_are_refused_before_any_download(
    model: str, weights: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_clip, "download_pretrained", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(ValueError, match=message):
        load_clip(ClipConfig(model=model), weights)


def test_a_tag_is_downloaded_by_open_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ClipConfig(model="ViT-B-32-quickgelu")
    state = {name: tensor.clone() for name, tensor in build_clip(config).state_dict().items()}
    save_file(state, tmp_path / "openai.safetensors")
    monkeypatch.setattr(open_clip, "download_pretrained", lambda tag: str(tmp_path / "openai.safetensors"))
    assert torch.equal(load_clip(config, "openai").state_dict()["text_projection"], state["text_projection"])


def test_mask2former_folders_that_do_not_fit_are_named(mini_config: InstFormerConfig, tmp_path: Path) -> None:
    network = Mask2FormerForUniversalSegmentation(mini_config.mask_proposal.build())
    network.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["class_predictor.bias"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing_keys: class_predictor\.bias"):
        load_mask2former(tmp_path)
    state["class_predictor.bias"] = torch.full((2,), float("inf"))
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"NaN or infinite.*class_predictor\.bias"):
        load_mask2former(tmp_path)
    with pytest.raises(ValueError, match="expected a transformers folder"):
        load_mask2former(tmp_path / "absent")


def test_mask2former_files_that_cannot_be_read_are_named(mini_config: InstFormerConfig, tmp_path: Path) -> None:
    Mask2FormerForUniversalSegmentation(mini_config.mask_proposal.build()).save_pretrained(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors: cannot be read"):
        load_mask2former(tmp_path)
    weights.unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load_mask2former(str(tmp_path))
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "maskformer"}))
    with pytest.raises(ValueError, match=r"config\.json: model_type: expected 'mask2former', got 'maskformer'"):
        load_mask2former(tmp_path)
    config.write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: cannot be read"):
        load_mask2former(tmp_path)
    with pytest.raises(ValueError, match=r"absent\.pkl: cannot be read"):
        load_mask2former(tmp_path / "absent.pkl")
    (tmp_path / "other.pkl").write_bytes(pickle.dumps({"model": {"a": np.zeros(1)}}))
    with pytest.raises(ValueError, match=r"other\.pkl: no Mask2Former"):
        load_mask2former(tmp_path / "other.pkl")
