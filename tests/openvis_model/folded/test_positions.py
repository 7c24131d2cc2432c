import math

import torch
from transformers.models.mask2former.modeling_mask2former import Mask2FormerSinePositionEmbedding

from openvis_model.folded.positions import sine_positions

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
