import json
import shutil
from pathlib import Path

import pytest
import torch

from openvis_model.clip import ClipConfig
from openvis_model.config import InstFormerConfig
from openvis_model.inst_former import InstFormer
from openvis_model.weights.checkpoint import fingerprint, load, save_checkpoint
from openvis_model.weights.files import BUILT_IN
from openvis_model.weights.text_encoder import load_text_encoder

TEXTS = ["a photo of a red star.", "striped ring"]


def test_it_is_the_models_and_so_is_the_fingerprint() -> None:
    model = load()
    encoder, identity = load_text_encoder()
    assert identity == fingerprint(model)
    # Where in memory the weights lie decides in which order some kernels add.
    torch.testing.assert_close(encoder(TEXTS), model.text_encoder(TEXTS), rtol=0, atol=1e-6)
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_a_clip_with_byte_pairs(mini_config: InstFormerConfig, tmp_path: Path) -> None:
    text = {"context_length": 77, "width": 128, "heads": 4, "layers": 2}
    architecture = mini_config.clip.architecture | {"text_cfg": text}
    fields = {**vars(mini_config), "clip": ClipConfig(architecture=architecture, stem=mini_config.clip.stem)}
    model = InstFormer(InstFormerConfig(**fields))
    save_checkpoint(model, tmp_path / "model")
    encoder, _ = load_text_encoder(tmp_path / "model")
    assert torch.equal(encoder(["any words"]), model.text_encoder(["any words"]))


def test_damage_is_named(tmp_path: Path) -> None:
    folder = shutil.copytree(BUILT_IN, tmp_path / "model")
    stored = json.loads((folder / "config.json").read_text())
    changed = stored["config"] | {"short_side": 128}
    (folder / "config.json").write_text(json.dumps(stored | {"config": changed}))
    with pytest.raises(ValueError, match="saved together"):
        load_text_encoder(folder)
    (folder / "config.json").write_text(json.dumps(stored | {"config": {}}))
    with pytest.raises(ValueError, match=r"config\.json: .*'classifier'.* missing"):
        load_text_encoder(folder)
    (folder / "clip.safetensors").unlink()
    (folder / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"clip\.safetensors: cannot be read"):
        load_text_encoder(folder)
