from pathlib import Path

import pytest
import torch

import tests.preload  # noqa: F401
from openvis_model.config import InstFormerConfig
from openvis_model.inst_former import InstFormer
from openvis_model.weights.checkpoint import save_checkpoint


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
