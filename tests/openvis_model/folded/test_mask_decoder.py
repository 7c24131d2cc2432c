import torch
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.folded.layers import Weights
from openvis_model.folded.mask_decoder import MaskDecoder, open_places


def test_open_places_by_hand() -> None:
    masks = torch.tensor([[[-1.0, 0.0, 2.0], [-1.0, -2.0, -3.0]]])
    assert open_places(masks).tolist() == [[[False, True, True], [True, True, True]]]


def test_masks_and_queries_are_those_of_transformers(tiny_mask2former: Mask2FormerForUniversalSegmentation) -> None:
    theirs = tiny_mask2former.model.transformer_module
    projection = tiny_mask2former.model.pixel_level_module.decoder.mask_projection
    ours = MaskDecoder(Weights(theirs.state_dict()), Weights(projection.state_dict()), heads=2)
    pixels = torch.randn(2, 32, 16, 24, dtype=torch.float64)
    levels = [torch.randn(2, 32, *size, dtype=torch.float64) for size in ((2, 3), (4, 6), (8, 12))]
    with torch.inference_mode():
        expected = theirs(multi_scale_features=levels, mask_features=projection(pixels), output_hidden_states=True)
        masks, queries = ours(levels, pixels)
    torch.testing.assert_close(masks, expected.masks_queries_logits[-1], rtol=0, atol=1e-11)
    torch.testing.assert_close(queries, expected.intermediate_hidden_states[-1].transpose(0, 1), rtol=0, atol=1e-11)
