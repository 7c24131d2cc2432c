import math

import torch
from transformers.models.mask2former.modeling_mask2former import Mask2FormerSinePositionEmbedding

from openvis_model.folded.positions import SIZES, BySize, sine_positions

DOUBLE = torch.zeros(1, dtype=torch.float64)


def test_one_place_by_hand() -> None:
    """Row 1 of 2 is at π, column 3 of 4 at 3π/2; the second wavelength of eight channels is 100 times the first."""
    place = sine_positions((2, 4), 8, DOUBLE)[2]
    row, column = math.pi, 1.5 * math.pi
    angles = [row, row / 100, column, column / 100]
    expected = [value for angle in angles for value in (math.sin(angle), math.cos(angle))]
    torch.testing.assert_close(place, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-5)


def test_positions_are_those_of_transformers() -> None:
    theirs = Mask2FormerSinePositionEmbedding(num_position_features=16, normalize=True)
    expected = theirs((1, 32, 5, 7), DOUBLE.device, torch.float64)[0].flatten(1).mT
    torch.testing.assert_close(sine_positions((5, 7), 32, DOUBLE), expected, rtol=0, atol=1e-12)


def test_values_are_made_once_for_each_size_and_in_full_precision() -> None:
    by_size, x = BySize(), torch.randn(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        first = by_size(((1, 2),), x, lambda: x @ x)
    assert first.dtype == torch.float32
    assert by_size(((1, 2),), x, lambda: x) is first
    assert by_size(((1, 2),), x.double(), lambda: x.double()).dtype == torch.float64
    assert by_size(((2, 1),), x, lambda: x) is x


def test_few_sizes_are_remembered() -> None:
    by_size = BySize()
    for height in range(3 * SIZES):
        assert by_size(((height, 1),), DOUBLE, lambda height=height: height + 1) == height + 1
        assert len(by_size.made) <= SIZES
