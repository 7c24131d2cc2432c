from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from openvis_model.config import InstFormerConfig
from openvis_model.inst_former import InstFormer
from openvis_model.weights.checkpoint import load_checkpoint, save_checkpoint


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
