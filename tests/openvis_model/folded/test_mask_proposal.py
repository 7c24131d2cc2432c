import copy

import pytest
import torch
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.folded.mask_proposal import FoldedMaskProposal, TransformersBackbone
from openvis_model.folded.resnet import Resnet
from openvis_model.mask2former import Mask2Former
from openvis_model.mask_proposal import MaskProposalConfig
from openvis_model.proposals import IMAGENET_MEAN, IMAGENET_STD


def test_proposals_are_those_of_the_trained_network(tiny_mask2former: Mask2FormerForUniversalSegmentation) -> None:
    network = copy.deepcopy(tiny_mask2former)
    config = MaskProposalConfig(network="mask2former", architecture=network.config.to_dict())
    # in double precision: attention opens where a logit exceeds zero, and float32 rounds some to either side
    trained = Mask2Former(config, short_side=64, network=network).double().eval()
    folded = FoldedMaskProposal(config.architecture, network.state_dict(), short_side=64)
    frames = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected, proposals = trained(frames), folded(frames)
    assert 0.05 < (expected.mask_logits > 0).float().mean() < 0.95
    for name in ("mask_logits", "queries", "objectness_logits"):
        torch.testing.assert_close(getattr(proposals, name), getattr(expected, name), rtol=0, atol=2e-6)


def test_other_frames_give_other_proposals(tiny_mask2former: Mask2FormerForUniversalSegmentation) -> None:
    folded = FoldedMaskProposal(tiny_mask2former.config.to_dict(), tiny_mask2former.state_dict(), short_side=64)
    frames = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    with torch.inference_mode():
        first, second = folded(frames).mask_logits
        again = folded(frames[1:]).mask_logits[0]
    assert (first - second).abs().max() > 1e-3
    torch.testing.assert_close(again, second, rtol=0, atol=1e-10)
    assert folded.mean.flatten().tolist() == list(IMAGENET_MEAN)
    assert folded.std.flatten().tolist() == list(IMAGENET_STD)


def test_resnets_as_published_are_ours(tiny_mask2former: Mask2FormerForUniversalSegmentation) -> None:
    config, state = tiny_mask2former.config.to_dict(), tiny_mask2former.state_dict()
    kind = Resnet if config["backbone_config"]["model_type"] == "resnet" else TransformersBackbone
    assert isinstance(FoldedMaskProposal(config, state, short_side=64).backbone, kind)


def test_a_resnet_with_other_strides_is_that_of_transformers(
    tiny_mask2former: Mask2FormerForUniversalSegmentation,
) -> None:
    config = tiny_mask2former.config.to_dict()
    if config["backbone_config"]["model_type"] == "resnet":
        config["backbone_config"] |= {"downsample_in_bottleneck": True}
    folded = FoldedMaskProposal(config, tiny_mask2former.state_dict(), short_side=64)
    assert isinstance(folded.backbone, TransformersBackbone)


def test_another_kind_of_layer_is_named(tiny_mask2former: Mask2FormerForUniversalSegmentation) -> None:
    config = tiny_mask2former.config.to_dict() | {"pre_norm": True}
    with pytest.raises(ValueError, match=r"mask2former\.pre_norm: expected False as published, got True"):
        FoldedMaskProposal(config, tiny_mask2former.state_dict(), short_side=64)


def test_weights_without_a_use_are_named(tiny_mask2former: Mask2FormerForUniversalSegmentation) -> None:
    state = tiny_mask2former.state_dict() | {"model.pixel_level_module.decoder.adapter_2.0.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"not Mask2Former as published, it also has .*adapter_2\.0\.weight"):
        FoldedMaskProposal(tiny_mask2former.config.to_dict(), state, short_side=64)
