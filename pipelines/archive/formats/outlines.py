"""Outlines of masks as polygons through the centres of boundary pixels."""

import numpy as np
from jaxtyping import Bool, Int64
from scipy import ndimage
from scipy.spatial.distance import cdist

_AROUND = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
"""Steps to the eight neighbours, (row, column), clockwise from the right."""

_TOUCHING = np.ones((3, 3), bool)


def polygon(mask: Bool[np.ndarray, "H W"]) -> tuple[Int64[np.ndarray, "n 2"], int, bool]:
    """Returns one polygon around a mask that is not empty, how many parts it has, and whether it has holes.

    Filled with its border, the polygon covers the mask, its holes, and a line from each part to another: parts are
    joined by going there and back between their nearest corners, as converters to YOLO do.

    Returns:
        x and y of the corners, pixels; the number of parts, which touch each other nowhere; whether holes are filled.
    """
    numbers, count = ndimage.label(mask, _TOUCHING)
    joined, *others = (
        _outline(numbers[rows, columns] == number) + np.array([columns.start, rows.start])
        for number, (rows, columns) in enumerate(ndimage.find_objects(numbers), start=1)
    )
    for part in others:
        here, there = np.unravel_index(cdist(joined, part).argmin(), (len(joined), len(part)))
        joined = np.concatenate([joined[: here + 1], part[there:], part[: there + 1], joined[here:]])
    empty = np.pad(~mask, 1, constant_values=True)
    return joined, count, bool(ndimage.label(empty)[1] > 1)


def _outline(part: Bool[np.ndarray, "h w"]) -> Int64[np.ndarray, "n 2"]:
    """Returns x and y of the corners of a part's outer border, clockwise, by Moore's neighbour tracing."""
    padded = np.pad(part, 1)
    width = padded.shape[1]
    pixels, steps = padded.tobytes(), [row * width + column for row, column in _AROUND]
    start = at = pixels.index(1)
    search = 5  # the pixels to the left of and above the first one are empty
    path: list[tuple[int, int]] = []  # pixel, and number of the step to the next
    while True:
        turn = next((turn % 8 for turn in range(search, search + 8) if pixels[at + steps[turn % 8]]), None)
        if turn is None or path[:1] == [(at, turn)]:
            break
        path.append((at, turn))
        at += steps[turn]
        search = turn + (6 if turn % 2 else 7)  # after the neighbour that was last found empty
    before = [turn for _, turn in path[-1:] + path]
    corners = [at for (at, turn), last in zip(path, before, strict=False) if turn != last] or [start]
    rows, columns = np.divmod(np.array(corners), width)
    return np.stack([columns - 1, rows - 1], axis=1)
