import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from openvis_model.config import InstFormerConfig
from openvis_model.inst_former import InstFormer
from openvis_model.proposal_networks import NETWORKS
from openvis_model.weights.checkpoint import fingerprint, fold, load_checkpoint, save_checkpoint
from openvis_model.weights.files import BUILT_IN, model_fingerprint, read_states, weight_files
from openvis_model.weights.folded_model import load
from tests.networks import with_proposals


def test_the_built_in_model_finds_what_the_trained_one_finds(frames: Tensor) -> None:
    trained, folded = load_checkpoint(BUILT_IN), load()
    assert folded.fingerprint == fingerprint(trained)
    assert folded.short_side == trained.short_side
    for one, other in zip(folded(frames), trained(frames), strict=True):
        assert one.masks == other.masks
        torch.testing.assert_close(one.instance_tokens, other.instance_tokens, rtol=0, atol=1e-5)
        torch.testing.assert_close(one.queries, other.queries, rtol=0, atol=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_checkpoint_with_each_proposal_network(
    network: str, mini_config: InstFormerConfig, frames: Tensor, tmp_path: Path
) -> None:
    """Read for training, read for inference, and folded in memory; a network without a folded form is as it was."""
    model = with_proposals(mini_config, network)
    identity = save_checkpoint(model, tmp_path / "model")
    trained, loaded = load_checkpoint(tmp_path / "model"), load(tmp_path / "model")
    folded = fold(trained)
    assert trained.config == model.config
    assert {fingerprint(trained), loaded.identity(), folded.identity()} == {identity}
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    expected = model(frames[:2])
    for other in (trained(frames[:2]), loaded(frames[:2]), folded(frames[:2])):
        for one, two in zip(expected, other, strict=True):
            torch.testing.assert_close(two.instance_tokens, one.instance_tokens, rtol=0, atol=1e-4)
            torch.testing.assert_close(two.objectness, one.objectness, rtol=0, atol=1e-5)


def test_an_unknown_proposal_network_is_named(checkpoint: Path) -> None:
    """As a checkpoint of a later version may have one."""
    stored = json.loads((checkpoint / "config.json").read_text())
    config = stored["config"] | {"mask_proposal": {"other": {}, "freeze_batch_norm": True}}
    names = weight_files(checkpoint, config["classifier"])
    identity = model_fingerprint(config, read_states(checkpoint, names))
    (checkpoint / "config.json").write_text(json.dumps({"config": config, "fingerprint": identity}))
    with pytest.raises(ValueError, match=r"config\.json: mask_proposal: unknown network 'other'; choose from"):
        load(checkpoint)


def test_pixels_of_a_folded_network_are_normalised_as_its_config_says(
    mini_config: InstFormerConfig, tmp_path: Path
) -> None:
    proposal = replace(mini_config.mask_proposal, pixel_mean=(0.1, 0.2, 0.3), pixel_std=(0.5, 0.25, 0.2))
    save_checkpoint(InstFormer(replace(mini_config, mask_proposal=proposal)), tmp_path / "model")
    network = load(tmp_path / "model").mask_proposal
    assert network.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert network.std.flatten().tolist() == pytest.approx([0.5, 0.25, 0.2])


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
