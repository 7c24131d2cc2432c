import pytest
import torch

from openvis_model.frames import to_pixels
from openvis_model.working_size import working_size


def seen(height: int, width: int) -> tuple[int, int]:
    return working_size(height, width, short_side=64, divisor=32)


def test_frames_of_the_working_size_are_only_scaled() -> None:
    frames = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    pixels = to_pixels(frames, seen)
    assert torch.equal(pixels, frames.permute(0, 3, 1, 2) / 255)


def test_resizing_averages() -> None:
    """Halving a checkerboard of black and white pixels with antialiasing leaves grey inside."""
    board = (torch.arange(128)[:, None] + torch.arange(128)) % 2 * 255
    frames = board[None, :, :, None].expand(1, -1, -1, 3).byte()
    pixels = to_pixels(frames, seen)
    assert pixels.shape == (1, 3, 64, 64)
    assert (pixels[:, :, 2:-2, 2:-2] - 0.5).abs().max() < 0.01


def test_what_was_made_for_another_network_is_returned() -> None:
    pixels = to_pixels(torch.randint(0, 256, (2, 90, 160, 3), dtype=torch.uint8), seen)
    assert to_pixels(pixels, seen) is pixels


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(4, 3, 32, 32, dtype=torch.uint8), r"\[T, H, W, 3\].*\[4, 3, 32, 32\]"),
        (torch.zeros(32, 32, 3, dtype=torch.uint8), r"\[T, H, W, 3\].*\[32, 32, 3\]"),
        (torch.zeros(4, 32, 32, 3), "uint8.*float32"),
        (torch.zeros(0, 32, 32, 3, dtype=torch.uint8), "no pixels"),
        (torch.zeros(2, 0, 32, 3, dtype=torch.uint8), "no pixels"),
    ],
)
def test_bad_frames_are_refused(frames: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_pixels(frames, seen)
