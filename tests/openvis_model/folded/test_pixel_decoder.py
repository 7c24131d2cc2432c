import torch
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.folded.layers import Weights
from openvis_model.folded.pixel_decoder import PixelDecoder


def test_maps_are_those_of_transformers(tiny_mask2former: Mask2FormerForUniversalSegmentation) -> None:
    theirs = tiny_mask2former.model.pixel_level_module.decoder
    ours = PixelDecoder(Weights(theirs.state_dict()), heads=2)
    for height, width in ((16, 24), (12, 8), (16, 24)):
        maps = [
            torch.randn(2, channels, height // 2**level, width // 2**level, dtype=torch.float64)
            for level, channels in enumerate(theirs.feature_channels)
        ]
        with torch.inference_mode():
            expected, (levels, pixels) = theirs(maps), ours(maps)
            features = theirs.mask_projection(pixels)
        for level, reference in zip(levels, expected.multi_scale_features, strict=True):
            torch.testing.assert_close(level, reference, rtol=0, atol=1e-11)
        torch.testing.assert_close(features, expected.mask_features, rtol=0, atol=1e-11)
