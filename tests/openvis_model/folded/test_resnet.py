import pytest
import torch
from transformers import AutoBackbone, ResNetConfig

from openvis_model.folded.layers import Weights
from openvis_model.folded.resnet import Resnet
from tests.networks import OUT, TINY_BACKBONES, trained_norms


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
def test_maps_are_those_of_transformers(layer_type: str) -> None:
    values = TINY_BACKBONES["resnet"] | OUT | {"layer_type": layer_type, "depths": [1, 2, 1, 2]}
    reference = AutoBackbone.from_config(ResNetConfig.from_dict(values)).double().eval()
    trained_norms(reference)
    pixels = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.inference_mode():
        maps = Resnet(Weights(reference.state_dict()))(pixels)
        for ours, theirs in zip(maps, reference(pixels).feature_maps, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)
