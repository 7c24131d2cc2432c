"""Pictures of no place: discs of random sizes and colours that hide each other, the dead leaves model of images.

Sizes, borders and hidden parts are distributed as in photographs (Lee, Mumford and Huang 2001), and every disc has a
mask. Embedded, they stand for any object at all: what a model says of an object, whatever it is.
"""

import numpy as np
from jaxtyping import Bool, UInt8

PICTURES = 8
"""Pictures of the reference."""

LEAVES = 60
"""Discs in a picture."""

SIZES = 0.06, 0.5
"""Smallest and largest radius, as a share of the shorter side; the number of discs falls with the third power."""

OBJECTS, VISIBLE = 16, 0.005
"""Most objects of a picture, and the share of it that shows of each."""


def dead_leaves(index: int, height: int, width: int) -> tuple[UInt8[np.ndarray, "H W 3"], Bool[np.ndarray, "N H W"]]:
    """Draws picture number `index`; returns it, and a mask of what shows of each of its foremost discs."""
    rng = np.random.Generator(np.random.PCG64(index))
    smallest, largest = (size**-2 for size in SIZES)
    radii = np.sort((smallest + rng.random(LEAVES) * (largest - smallest)) ** -0.5)[::-1] * min(height, width)
    y, x = np.mgrid[:height, :width] + 0.5
    owner = np.full((height, width), -1)
    picture = np.zeros((height, width, 3), np.uint8)
    for leaf, radius in enumerate(radii):
        inside = (y - rng.random() * height) ** 2 + (x - rng.random() * width) ** 2 <= radius**2
        owner[inside], picture[inside] = leaf, rng.integers(0, 256, 3)
    leaves, areas = np.unique(owner[owner >= 0], return_counts=True)
    foremost = leaves[areas >= VISIBLE * height * width][-OBJECTS:]
    return picture, owner == foremost[:, None, None]
