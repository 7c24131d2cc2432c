"""The 20 outlines of Shapes, as signed distance maps that can be sampled smoothly at any size and tilt.

An outline is drawn by hand in object coordinates: x to the right, y down, about -1 to 1 on both axes. The outlines were
chosen so that no two of them can be laid over each other within the tilts that occur (see the tests).
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import Bool, Float32, Float64

EXTENT = 1.25
"""A distance map covers -EXTENT to EXTENT of object coordinates; every outline ends well within."""

REACH = 1.4
"""No point of an outline is farther than this from the object's centre."""

MAP_SIDE = 64
"""Samples of a distance map along each side."""

_FINE = 6  # pixels drawn per sample and axis

X = Float64[np.ndarray, "1 w"]
Y = Float64[np.ndarray, "h 1"]
Area = Bool[np.ndarray, "h w"]
Draw = Callable[[X, Y], Area]
Number = int | float


def _disc(cx: Number, cy: Number, radius: Number, stretch: Number = 1) -> Draw:
    """Draws a disc, or an ellipse whose half-axis along x is `stretch` radii."""
    return lambda x, y: ((x - cx) / stretch) ** 2 + (y - cy) ** 2 < radius**2


def _box(left: Number, top: Number, right: Number, bottom: Number) -> Draw:
    return lambda x, y: (left < x) & (x < right) & (top < y) & (y < bottom)


def _polygon(*points: tuple[Number, Number]) -> Draw:
    def inside(x: X, y: Y) -> Area:
        crossings = np.zeros((y.size, x.size), dtype=bool)
        for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
            if ay != by:
                crossings ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * ((bx - ax) / (by - ay)))
        return crossings

    return inside


def _join(*parts: Draw) -> Draw:
    return lambda x, y: np.logical_or.reduce([part(x, y) for part in parts])


def _cut(whole: Draw, *holes: Draw) -> Draw:
    return lambda x, y: whole(x, y) & ~_join(*holes)(x, y)


_DRAWINGS: dict[str, Draw] = {
    # The first 15 occur in base categories, the last 5 in novel ones only.
    "circle": _disc(0, 0, 0.92),
    "square": _box(-0.82, -0.82, 0.82, 0.82),
    "triangle": _polygon((0, -1), (1.05, 0.85), (-1.05, 0.85)),
    "star": _polygon(
        (0, -1.05), (0.28, -0.39), (1, -0.32), (0.46, 0.15), (0.62, 0.85),
        (0, 0.48), (-0.62, 0.85), (-0.46, 0.15), (-1, -0.32), (-0.28, -0.39),
    ),
    "heart": _join(
        _disc(-0.48, -0.36, 0.52), _disc(0.48, -0.36, 0.52), _polygon((-0.9, -0.06), (0, -0.4), (0.9, -0.06), (0, 0.98))
    ),
    "cross": _join(_box(-0.36, -1, 0.36, 1), _box(-1, -0.36, 1, 0.36)),
    "ring": _cut(_disc(0, 0, 1), _disc(0, 0, 0.5)),
    "moon": _cut(_disc(-0.05, 0, 1), _disc(0.5, -0.1, 0.78)),
    "arrow": _polygon((0, -1.05), (0.95, 0), (0.38, 0), (0.38, 1), (-0.38, 1), (-0.38, 0), (-0.95, 0)),
    "diamond": _polygon((0, -1.1), (0.66, 0), (0, 1.1), (-0.66, 0)),
    "bolt": _polygon((0.25, -1.1), (-0.85, 0.25), (-0.15, 0.25), (-0.6, 1.1), (0.9, -0.3), (0.2, -0.3), (0.85, -1.1)),
    "hourglass": _polygon((-0.85, -1), (0.85, -1), (0.14, 0), (0.85, 1), (-0.85, 1), (-0.14, 0)),
    "mushroom": _join(_cut(_disc(0, 0, 1), _box(-2, 0.05, 2, 2)), _box(-0.32, 0, 0.32, 1)),
    "arch": _cut(
        _join(_disc(0, -0.05, 0.95), _box(-0.95, -0.05, 0.95, 0.95)), _disc(0, 0, 0.42), _box(-0.42, 0, 0.42, 2)
    ),
    "drop": _join(_disc(0, 0.35, 0.65), _polygon((0, -1.1), (0.6, 0.1), (-0.6, 0.1))),
    "crown": _polygon((-1, -0.8), (-0.5, -0.05), (0, -0.9), (0.5, -0.05), (1, -0.8), (0.85, 0.8), (-0.85, 0.8)),
    "key": _join(
        _cut(_disc(0, -0.5, 0.62), _disc(0, -0.5, 0.22)),
        _box(-0.24, 0, 0.24, 1.1), _box(0, 0.25, 0.72, 0.55), _box(0, 0.8, 0.72, 1.1),
    ),
    "fish": _join(_disc(-0.3, 0, 0.62, 1.25), _polygon((0.2, 0), (1.05, -0.7), (1.05, 0.7))),
    "comb": _join(_box(-0.9, -0.9, -0.35, 0.9), *(_box(-0.5, y - 0.2, 0.9, y + 0.2) for y in (-0.7, 0, 0.7))),
    "clover": _join(
        _disc(0, -0.5, 0.47), _disc(-0.52, 0.15, 0.47), _disc(0.52, 0.15, 0.47),
        _disc(0, 0, 0.2), _polygon((0, -0.2), (0.26, 1.05), (-0.26, 1.05)),
    ),
}  # fmt: skip

OUTLINES = tuple(_DRAWINGS)
"""Names of the outlines, in the order of category ids."""


@cache
def distance_map(shape: str) -> Float32[np.ndarray, "64 64"]:
    """Returns signed distances to an outline in object coordinates, negative inside; sample [row, column] is at y, x.

    The first and last sample of an axis lie at -EXTENT and EXTENT. The outline is drawn as pixels and its exact
    Euclidean distance transform is taken, so that seams between the parts of a drawing leave no trace.

    Args:
        shape: one of `OUTLINES`.
    """
    side = _FINE * (MAP_SIDE - 1) + 1
    axis = np.arange(side) * (2 * EXTENT / (side - 1)) - EXTENT
    inside = _DRAWINGS[shape](axis[None, :], axis[:, None])
    # A pixel's distance to the other side counts to that side's pixel centres, half a pixel beyond the edge.
    pixels = np.where(inside, 0.5 - _distance(inside), _distance(~inside) - 0.5)
    samples = (pixels * (2 * EXTENT / (side - 1)))[::_FINE, ::_FINE].astype(np.float32)
    samples.flags.writeable = False
    return samples


def _distance(area: Area) -> Float64[np.ndarray, "h w"]:
    """Returns the distance of each pixel of `area` to the nearest pixel outside, in pixels; 0 outside."""
    from scipy import ndimage  # a slow import that options of Shapes do without

    distances: np.ndarray = ndimage.distance_transform_edt(area)
    return distances
