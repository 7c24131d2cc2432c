from itertools import combinations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from pipelines.shapes.outlines import EXTENT, MAP_SIDE, OUTLINES, REACH, distance_map
from pipelines.shapes.scenes import MAX_TILT

AXIS = np.linspace(-EXTENT, EXTENT, MAP_SIDE)
RADIUS = np.hypot(AXIS[None, :], AXIS[:, None])


def filled(shape: str, turns: float, area: float) -> np.ndarray:
    """The outline, tilted and scaled to an area, as bool [64, 64] over -2 to 2."""
    own_area = (distance_map(shape) < 0).mean() * (2 * EXTENT) ** 2
    grid = np.linspace(-2, 2, 64) * np.sqrt(own_area / area)
    sin, cos = np.sin(2 * np.pi * turns), np.cos(2 * np.pi * turns)
    x, y = grid[None, :], grid[:, None]
    places = [(y * cos - x * sin + EXTENT), (x * cos + y * sin + EXTENT)]
    return map_coordinates(distance_map(shape), np.array(places) / (AXIS[1] - AXIS[0]), order=1, mode="nearest") < 0


def test_twenty_names() -> None:
    assert len(set(OUTLINES)) == 20


def test_circle_is_exact() -> None:
    np.testing.assert_allclose(distance_map("circle"), RADIUS - 0.92, atol=0.01)


def test_square_inside_is_exact() -> None:
    expected = np.maximum(abs(AXIS[None, :]), abs(AXIS[:, None])) - 0.82
    inside = expected < 0
    np.testing.assert_allclose(distance_map("square")[inside], expected[inside], atol=0.01)


@pytest.mark.parametrize("shape", OUTLINES)
def test_outlines_fill_their_map(shape: str) -> None:
    inside = distance_map(shape) < 0
    assert RADIUS[inside].max() < REACH
    assert not inside[[0, -1]].any()
    assert not inside[:, [0, -1]].any()
    rows, columns = np.nonzero(inside)
    widths = np.ptp(AXIS[rows]), np.ptp(AXIS[columns])
    assert 1.5 < max(widths) < 2.3
    assert inside.mean() * (2 * EXTENT) ** 2 > 1.3  # of a 2 by 2 box


def test_no_two_outlines_can_be_laid_over_each_other() -> None:
    tilts = np.linspace(-2 * MAX_TILT, 2 * MAX_TILT, 9)
    tilted = {shape: np.array([filled(shape, tilt, 2.0) for tilt in tilts]) for shape in OUTLINES}
    upright = {shape: filled(shape, 0, 2.0) for shape in OUTLINES}
    for a, b in combinations(OUTLINES, 2):
        overlap = (upright[a] & tilted[b]).sum((1, 2)) / (upright[a] | tilted[b]).sum((1, 2))
        assert overlap.max() < 0.86, f"{a} and {b} look alike"
