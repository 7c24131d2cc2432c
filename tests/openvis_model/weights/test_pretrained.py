import json
import pickle
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.clip import ClipConfig, build_clip
from openvis_model.config import InstFormerConfig, mini
from openvis_model.weights.pretrained import load_clip, load_mask2former
from tests.words import WORDS


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
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "neither a file nor a tag"),
        ("ViT-B-32", "nowhere", "neither a file nor a tag of 'ViT-B-32'; choose from its tags .*openai"),
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
    with pytest.raises(ValueError, match=r"other\.pkl: not a Mask2Former"):
        load_mask2former(tmp_path / "other.pkl")
