"""Pixels that masks and tubes have in common, counted on their run lengths; no mask is ever dense.

A tube is the masks of a track, one per frame.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer

from pipelines.datasets.compiled import kernel
from pipelines.datasets.run_lengths import RunLengths


def intersections(
    first: RunLengths, second: RunLengths, rows: Int64[np.ndarray, "P"], columns: Int64[np.ndarray, "P"]
) -> Int64[np.ndarray, "P"]:
    """Returns the pixels that masks have in common; 0 where their frames differ in size.

    Args:
        first: masks.
        second: masks.
        rows: positions in `first`.
        columns: positions in `second`, one for each of `rows`.
    """
    shared = np.zeros(len(rows), np.int64)
    _intersect(first, second, rows, columns, shared)
    return shared


def compare_tubes(
    first: RunLengths,
    second: RunLengths,
    frames: Int64[np.ndarray, "P 3"],
    least: Float64[np.ndarray, "P"],
    marks: Int64[np.ndarray, "P"],
    marked: Bool[np.ndarray, "M"],
) -> Int64[np.ndarray, "P 2"]:
    """Returns the pixels that pairs of tubes have in common, and those of either.

    A tube is consecutive masks. A frame whose masks differ in size adds nothing to either sum, unless one is absent.

    Args:
        first: masks.
        second: masks.
        frames: per pair a position in `first`, one in `second`, and the number of frames.
        least: per pair the smallest IoU that matters; zeros are returned if it cannot be reached.
        marks: per pair a position in `marked`, or -1.
        marked: is set, from that position on, for the frames in which the masks have an IoU of 0.5 or more. That needs
            a least IoU of 0.
    """
    sums = np.zeros((len(frames), 2), np.int64)
    _compare_tubes(first, second, frames, least, marks, marked, sums)
    return sums


@kernel
def _first_beyond(ends: Integer[np.ndarray, "R"], place: int) -> int:
    """Returns the first foreground run that ends after a place, by bisection."""
    low, high = 0, len(ends) // 2
    while low < high:
        middle = (low + high) // 2
        if ends[2 * middle + 1] > place:
            high = middle
        else:
            low = middle + 1
    return 2 * low + 1


@kernel
def _shared_pixels(own_ends: Integer[np.ndarray, "R"], other_ends: Integer[np.ndarray, "S"]) -> int:
    """Walks the foreground runs of two masks, always past the one that ends first."""
    if len(own_ends) < 2 or len(other_ends) < 2:
        return 0
    last, other_last = own_ends[len(own_ends) // 2 * 2 - 1], other_ends[len(other_ends) // 2 * 2 - 1]
    if last <= other_ends[0] or other_last <= own_ends[0]:
        return 0
    # Unsigned positions spare a check for negative ones.
    one, two = np.uint64(1), np.uint64(2)
    i = np.uint64(_first_beyond(own_ends, other_ends[0]))
    j = np.uint64(_first_beyond(other_ends, own_ends[0]))
    i_stop, j_stop = np.uint64(len(own_ends)), np.uint64(len(other_ends))
    total = 0
    while i < i_stop and j < j_stop:
        start, i_end, j_end = max(own_ends[i - one], other_ends[j - one]), own_ends[i], other_ends[j]
        if i_end <= j_end:
            total += max(i_end - start, 0)
            i += two
        else:
            total += max(j_end - start, 0)
            j += two
    return total


@kernel
def _runs(masks: RunLengths, row: int) -> Integer[np.ndarray, "R"]:
    """Returns the run lengths of one mask."""
    return masks.ends[masks.starts[row] : masks.starts[row + 1]]


@kernel
def _is_same_size(first: RunLengths, row: int, second: RunLengths, column: int) -> bool:
    height, width = first.sizes[row]
    other_height, other_width = second.sizes[column]
    return bool(height == other_height and width == other_width)


@kernel
def _is_comparable(first: RunLengths, row: int, second: RunLengths, column: int) -> bool:
    """Whether two masks have the same size, or one is absent."""
    one_absent = first.sizes[row, 0] == 0 or second.sizes[column, 0] == 0
    return bool(one_absent or _is_same_size(first, row, second, column))


@kernel
def _intersect(
    first: RunLengths,
    second: RunLengths,
    rows: Int64[np.ndarray, "P"],
    columns: Int64[np.ndarray, "P"],
    shared: Int64[np.ndarray, "P"],
) -> None:
    """Fills `shared`."""
    for pair in range(len(rows)):
        row, column = rows[pair], columns[pair]
        if _is_same_size(first, row, second, column):
            shared[pair] = _shared_pixels(_runs(first, row), _runs(second, column))


@kernel
def _compare_tubes(
    first: RunLengths,
    second: RunLengths,
    frames: Int64[np.ndarray, "P 3"],
    least: Float64[np.ndarray, "P"],
    marks: Int64[np.ndarray, "P"],
    marked: Bool[np.ndarray, "M"],
    sums: Int64[np.ndarray, "P 2"],
) -> None:
    """Fills `marked` and `sums`, but leaves a pair as soon as it cannot reach its least IoU."""
    for pair in range(len(frames)):
        row, column, length = frames[pair]
        pixels = possible = 0  # of both tubes; that they may have in common
        for t in range(length):
            if _is_comparable(first, row + t, second, column + t):
                pixels += first.areas[row + t] + second.areas[column + t]
                possible += min(first.areas[row + t], second.areas[column + t])
        common = 0
        for t in range(length):
            if possible < least[pair] * (pixels - possible):
                break
            own_area, other_area = first.areas[row + t], second.areas[column + t]
            if own_area == 0 or other_area == 0 or not _is_same_size(first, row + t, second, column + t):
                continue
            shared = _shared_pixels(_runs(first, row + t), _runs(second, column + t))
            common += shared
            possible += shared - min(own_area, other_area)
            if marks[pair] >= 0 and shared > 0 and 2 * shared >= own_area + other_area - shared:
                marked[marks[pair] + t] = True
        if possible >= least[pair] * (pixels - possible):
            sums[pair] = common, pixels - common
