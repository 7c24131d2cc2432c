import pytest
import torch
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.mask_proposal import MaskProposalConfig
from tests.networks import OUT, TINY, TINY_BACKBONES, trained_norms


@pytest.fixture(scope="module", params=TINY_BACKBONES)
def tiny_mask2former(request: pytest.FixtureRequest) -> Mask2FormerForUniversalSegmentation:
    """A proposal network of each kind of backbone, float64, whose masks are neither empty nor full."""
    values = TINY | {"backbone_config": TINY_BACKBONES[request.param] | OUT, "encoder_layers": 2, "decoder_layers": 8}
    config = MaskProposalConfig(network="mask2former", architecture=values)
    network = Mask2FormerForUniversalSegmentation(config.build()).double().eval()
    trained_norms(network)
    with torch.no_grad():  # as many logits above zero as below
        network.model.pixel_level_module.decoder.mask_projection.bias.zero_()
    return network
