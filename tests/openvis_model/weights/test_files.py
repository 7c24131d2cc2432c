from pathlib import Path

import pytest
import torch

from openvis_model.weights.files import BUILT_IN, check_fingerprint, model_fingerprint, read_config, read_states


def test_the_fingerprint_covers_config_and_weights() -> None:
    states = {"clip": {"a": torch.ones(2)}, "mask_proposal": {"a": torch.zeros(2)}}
    expected = model_fingerprint({"short_side": 96}, states)
    check_fingerprint(Path("model"), {"short_side": 96}, states, expected)
    for config, other in (
        ({"short_side": 97}, states),
        ({"short_side": 96}, states | {"clip": {"a": torch.zeros(2)}}),
        ({"short_side": 96}, states | {"clip": {"b": torch.ones(2)}}),
    ):
        with pytest.raises(ValueError, match="model: config.json and weights are not those that were saved together"):
            check_fingerprint(Path("model"), config, other, expected)


def test_missing_files_are_named(tmp_path: Path) -> None:
    message = f"^checkpoint: {tmp_path}: not a checkpoint folder \\(it has no config.json\\); give one that jobs.train"
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path)
    with pytest.raises(ValueError, match="clip.safetensors: cannot be read"):
        read_states(tmp_path, ["clip"])
    assert read_states(BUILT_IN, ["clip"])["clip"]["logit_scale"].shape == ()
