import pytest
import torch

from openvis_model.colours import mean_colours


def test_by_hand() -> None:
    """Two pixels of logits stand for two halves of a frame: the left one is red, the right one 40 and 80 in turns."""
    pixels = torch.zeros(2, 3, 2, 4)
    pixels[0, 0, :, :2] = 200
    pixels[0, :, 0, 2:], pixels[0, :, 1, 2:] = 40, 80
    pixels[1] = 7
    logits = torch.tensor([[[5.0, -9.0]], [[1.0, 3.0]], [[-1.0, 2.0]]])
    expected = [[200, 0, 0], [(200 + 3 * 60) / 4, 45, 45], [7, 7, 7]]
    assert mean_colours(pixels / 255, logits, [2, 1]).tolist() == [pytest.approx(row) for row in expected]


def test_of_no_pixels_and_of_no_instances() -> None:
    pixels = torch.full((2, 3, 4, 4), 0.5)
    assert mean_colours(pixels, torch.full((1, 2, 2), -1.0), [0, 1]).tolist() == [[0, 0, 0]]
    assert mean_colours(pixels, torch.zeros(0, 2, 2), [0, 0]).shape == (0, 3)
