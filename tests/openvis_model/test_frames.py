import pytest
import torch

from openvis_model.frames import to_pixels, working_size


@pytest.mark.parametrize(
    ("frame", "short_side", "expected"),
    [
        ((720, 1280), 384, (384, 672)),  # 1280 · 384 / 720 = 682.7, and 21.3 · 32 rounds to 21 · 32
        ((1280, 720), 384, (672, 384)),
        ((384, 640), 384, (384, 640)),
        ((96, 96), 384, (384, 384)),
        ((300, 4000), 384, (96, 1344)),  # the long side is limited to 1333: 300 · 1333 / 4000 = 100 rounds to 96
        ((2, 4000), 384, (32, 1344)),
        ((100, 150), 96, (96, 128)),  # 150 · 96 / 100 = 144 = 4.5 · 32, which rounds to the even 4
    ],
)
def test_working_size(frame: tuple[int, int], short_side: int, expected: tuple[int, int]) -> None:
    assert working_size(*frame, short_side=short_side, divisor=32) == expected


def test_frames_of_the_working_size_are_only_scaled() -> None:
    frames = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    pixels = to_pixels(frames, short_side=64, divisor=32)
    assert torch.equal(pixels, frames.permute(0, 3, 1, 2) / 255)


def test_resizing_averages() -> None:
    """Halving a checkerboard of black and white pixels with antialiasing leaves grey inside."""
    board = (torch.arange(128)[:, None] + torch.arange(128)) % 2 * 255
    frames = board[None, :, :, None].expand(1, -1, -1, 3).byte()
    pixels = to_pixels(frames, short_side=64, divisor=32)
    assert pixels.shape == (1, 3, 64, 64)
    assert (pixels[:, :, 2:-2, 2:-2] - 0.5).abs().max() < 0.01


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
        to_pixels(frames, short_side=32, divisor=32)
