import pytest
import torch

from openvis_model.convolutional_stem import ConvolutionalStem


@pytest.mark.parametrize("patch_size", [8, 16, 32])
def test_a_token_per_patch(patch_size: int) -> None:
    stem = ConvolutionalStem(48, patch_size=patch_size).eval()
    assert stem(torch.rand(2, 3, 3 * patch_size, 4 * patch_size)).shape == (2, 48, 3, 4)


@pytest.mark.parametrize("patch_size", [4, 12, 14])
def test_patches_that_halvings_do_not_make_are_refused(patch_size: int) -> None:
    with pytest.raises(ValueError, match=rf"8, 16, 32.*got {patch_size}"):
        ConvolutionalStem(48, patch_size=patch_size)


def test_a_frozen_stem_keeps_its_statistics_in_training() -> None:
    stem, pixels = ConvolutionalStem(48, patch_size=8), torch.rand(2, 3, 16, 16) * 9
    before = {name: value.clone() for name, value in stem.state_dict().items()}
    stem.requires_grad_(False).train()(pixels)
    assert all(torch.equal(value, before[name]) for name, value in stem.state_dict().items())
    stem.requires_grad_(True).train()(pixels)
    assert not torch.equal(stem.state_dict()["layers.0.1.running_mean"], before["layers.0.1.running_mean"])


def test_a_token_sees_beyond_its_patch() -> None:
    stem = ConvolutionalStem(48, patch_size=8).eval()
    pixels = torch.rand(1, 3, 24, 24)
    other = pixels.clone()
    other[:, :, :, :8] = 0
    assert (stem(pixels) - stem(other))[..., 1].abs().max() > 1e-6
