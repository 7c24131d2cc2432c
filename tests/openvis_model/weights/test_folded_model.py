from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from openvis_model.config import InstFormerConfig
from openvis_model.inst_former import InstFormer
from openvis_model.weights.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from openvis_model.weights.files import BUILT_IN
from openvis_model.weights.folded_model import load


def test_the_built_in_model_finds_what_the_trained_one_finds(frames: Tensor) -> None:
    trained, folded = load_checkpoint(BUILT_IN), load()
    assert folded.fingerprint == fingerprint(trained)
    assert folded.short_side == trained.short_side
    for one, other in zip(folded(frames), trained(frames), strict=True):
        assert one.masks == other.masks
        torch.testing.assert_close(one.instance_tokens, other.instance_tokens, rtol=0, atol=1e-5)
        torch.testing.assert_close(one.queries, other.queries, rtol=0, atol=1e-4)


def test_a_checkpoint_with_crop_clip(mini_config: InstFormerConfig, frames: Tensor, tmp_path: Path) -> None:
    trained = InstFormer(replace(mini_config, classifier="crop_clip"))
    save_checkpoint(trained, tmp_path / "model")
    folded = load(tmp_path / "model")
    one, other = folded(frames[:1], objectness_floor=0.5)[0], trained(frames[:1], objectness_floor=0.5)[0]
    torch.testing.assert_close(one.instance_tokens, other.instance_tokens, rtol=0, atol=1e-5)


def test_damage_is_named(checkpoint: Path) -> None:
    (checkpoint / "mask_proposal.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"mask_proposal\.safetensors: cannot be read"):
        load(checkpoint)
