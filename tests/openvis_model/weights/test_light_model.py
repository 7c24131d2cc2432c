import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from openvis_model.clip import ClipConfig
from openvis_model.config import InstFormerConfig
from openvis_model.inst_former import InstFormer
from openvis_model.options import RolloutTrackerConfig, TrackerKind
from openvis_model.weights.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from openvis_model.weights.files import BUILT_IN
from openvis_model.weights.light_model import load_light_model

TEXTS = ["a photo of a red star.", "striped ring"]


def test_it_is_part_of_the_whole_model() -> None:
    model, light = load_checkpoint(BUILT_IN), load_light_model()
    assert (light.fingerprint, light.short_side) == (fingerprint(model), model.config.short_side)
    # Where in memory the weights lie decides in which order some kernels add.
    torch.testing.assert_close(light.text_encoder(TEXTS), model.text_encoder(TEXTS), rtol=0, atol=1e-6)
    assert not light.text_encoder.training
    assert not any(parameter.requires_grad for parameter in light.text_encoder.parameters())


@pytest.mark.parametrize("kind", get_args(TrackerKind))
def test_every_kind_of_rollout_tracker(kind: TrackerKind, mini_config: InstFormerConfig, tmp_path: Path) -> None:
    model = InstFormer(replace(mini_config, rollout_tracker=RolloutTrackerConfig(kind=kind, token="query")))
    save_checkpoint(model, tmp_path / "model")
    tracker = load_light_model(tmp_path / "model").rollout_tracker
    assert (tracker.config, tracker.width) == (model.rollout_tracker.config, model.rollout_tracker.width)
    tokens, state = torch.rand(3, tracker.width), tracker.initial_state(3)
    assert all(map(torch.equal, tracker(tokens, state), model.rollout_tracker(tokens, state)))


def test_a_clip_with_byte_pairs(mini_config: InstFormerConfig, tmp_path: Path) -> None:
    text = {"context_length": 77, "width": 128, "heads": 4, "layers": 2}
    architecture = mini_config.clip.architecture | {"text_cfg": text}
    fields = {**vars(mini_config), "clip": ClipConfig(architecture=architecture, stem=mini_config.clip.stem)}
    model = InstFormer(InstFormerConfig(**fields))
    save_checkpoint(model, tmp_path / "model")
    encoder = load_light_model(tmp_path / "model").text_encoder
    torch.testing.assert_close(encoder(["any words"]), model.text_encoder(["any words"]).detach(), rtol=0, atol=1e-6)


def test_damage_is_named(tmp_path: Path) -> None:
    folder = shutil.copytree(BUILT_IN, tmp_path / "model")
    stored = json.loads((folder / "config.json").read_text())
    changed = stored["config"] | {"short_side": 96}
    (folder / "config.json").write_text(json.dumps(stored | {"config": changed}))
    with pytest.raises(ValueError, match="saved together"):
        load_light_model(folder)
    (folder / "config.json").write_text(json.dumps(stored | {"config": {}}))
    with pytest.raises(ValueError, match=r"config\.json: .*'classifier'.* missing"):
        load_light_model(folder)
    adapter = folder / "adapter/adapter_config.json"
    (folder / "config.json").write_text(json.dumps(stored))
    adapter.write_text(adapter.read_text().replace('"r": 8', '"r": 4'))
    with pytest.raises(ValueError, match=r"adapter_config\.json: r: 4 disagrees with 8 of config\.json"):
        load_light_model(folder)
    (folder / "clip.safetensors").unlink()
    (folder / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"clip\.safetensors: cannot be read"):
        load_light_model(folder)
