from itertools import product

import numpy as np
import pytest
import supervision as sv
from scipy import ndimage

from pipelines.archive.formats.outlines import polygon


def filled(corners: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A polygon with its border, as supervision draws it, pixel for pixel as OpenCV does."""
    corners = np.concatenate([corners, corners[-1:], corners[-1:]])  # it draws none with fewer than three
    return sv.polygon_to_mask(corners, shape[::-1]).astype(bool)


def mask_of(rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows.split()])


@pytest.mark.parametrize(
    ("rows", "corners"),
    [
        ("#", [(0, 0)]),
        ("... .#. ...", [(1, 1)]),
        ("##", [(0, 0), (1, 0)]),
        ("### ### ###", [(0, 0), (2, 0), (2, 2), (0, 2)]),
        ("#.. .#. ..#", [(0, 0), (2, 2)]),
        (".#. ### .#.", [(1, 0), (2, 1), (1, 2), (0, 1)]),
    ],
)
def test_corners_are_centres_of_boundary_pixels(rows: str, corners: list[tuple[int, int]]) -> None:
    found, parts, holes = polygon(mask_of(rows))
    assert [tuple(corner) for corner in found.tolist()] == corners
    assert (parts, holes) == (1, False)


def test_every_mask_of_three_by_three_comes_back() -> None:
    """But for lines between its parts and for its holes."""
    for bits in product((False, True), repeat=9):
        mask = np.array(bits).reshape(3, 3)
        if not mask.any():
            continue
        corners, parts, holes = polygon(mask)
        assert parts == ndimage.label(mask, np.ones((3, 3)))[1]
        assert holes == (ndimage.binary_fill_holes(mask) != mask).any()
        drawn = filled(corners, mask.shape)
        assert drawn[mask].all()
        if parts == 1:
            assert (drawn == ndimage.binary_fill_holes(mask)).all()


def test_blobs_come_back() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        numbers, _ = ndimage.label(ndimage.gaussian_filter(rng.normal(size=(40, 50)), 2) > 0.02, np.ones((3, 3)))
        mask = ndimage.binary_fill_holes(numbers == 1)
        corners, parts, holes = polygon(mask)
        assert (parts, holes) == (1, False)
        assert (filled(corners, mask.shape) == mask).all()


def test_parts_are_joined_where_they_are_nearest() -> None:
    mask = np.zeros((9, 30), bool)
    mask[0:3, 0:3] = mask[6:9, 24:30] = mask[4:7, 10:14] = True
    corners, parts, holes = polygon(mask)
    assert (parts, holes) == (3, False)
    drawn = filled(corners, mask.shape)
    assert drawn[mask].all()
    assert ndimage.label(drawn, np.ones((3, 3)))[1] == 1
    assert (drawn & ~mask).sum() <= 22  # two lines, each a pixel wide
