from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from openvis_model.weights.checkpoint import load_checkpoint


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
