from pathlib import Path

import pytest
import torch

from openvis_model.weights import fingerprint, save_checkpoint
from pipelines.models import load_model


def test_the_built_in_model_is_the_same_everywhere() -> None:
    torch.manual_seed(5)
    first = load_model(None)
    torch.manual_seed(6)
    state = torch.get_rng_state()
    assert fingerprint(load_model(None)) == fingerprint(first)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_checkpoint_is_loaded(tmp_path: Path) -> None:
    model = load_model(None)
    expected = save_checkpoint(model, tmp_path / "checkpoint")
    assert fingerprint(load_model(str(tmp_path / "checkpoint"))) == expected
    with pytest.raises(ValueError, match="not a checkpoint folder"):
        load_model(str(tmp_path))
