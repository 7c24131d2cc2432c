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
    _intersect(first.sizes, first.starts, first.ends, second.sizes, second.starts, second.ends, rows, columns, shared)
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
    _compare_tubes(*first, *second, frames, least, marks, marked, sums)
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
def _intersect(
    first_sizes: Int64[np.ndarray, "n 2"],
    first_starts: Int64[np.ndarray, "n+1"],
    first_ends: Integer[np.ndarray, "R"],
    second_sizes: Int64[np.ndarray, "m 2"],
    second_starts: Int64[np.ndarray, "m+1"],
    second_ends: Integer[np.ndarray, "S"],
    rows: Int64[np.ndarray, "P"],
    columns: Int64[np.ndarray, "P"],
    shared: Int64[np.ndarray, "P"],
) -> None:
    """Fills `shared`."""
    for pair in range(len(rows)):
        row, column = rows[pair], columns[pair]
        if first_sizes[row, 0] != second_sizes[column, 0] or first_sizes[row, 1] != second_sizes[column, 1]:
            continue
        own_ends = first_ends[first_starts[row] : first_starts[row + 1]]
        other_ends = second_ends[second_starts[column] : second_starts[column + 1]]
        shared[pair] = _shared_pixels(own_ends, other_ends)


@kernel
def _is_comparable(sizes: Int64[np.ndarray, "n 2"], row: int, others: Int64[np.ndarray, "m 2"], column: int) -> bool:
    """Whether two masks have the same size, or one is absent."""
    height, width = sizes[row]
    other_height, other_width = others[column]
    return bool(height == 0 or other_height == 0 or (height == other_height and width == other_width))


@kernel
def _compare_tubes(
    first_sizes: Int64[np.ndarray, "n 2"],
    first_areas: Int64[np.ndarray, "n"],
    first_starts: Int64[np.ndarray, "n+1"],
    first_ends: Integer[np.ndarray, "R"],
    second_sizes: Int64[np.ndarray, "m 2"],
    second_areas: Int64[np.ndarray, "m"],
    second_starts: Int64[np.ndarray, "m+1"],
    second_ends: Integer[np.ndarray, "S"],
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
            if _is_comparable(first_sizes, row + t, second_sizes, column + t):
                pixels += first_areas[row + t] + second_areas[column + t]
                possible += min(first_areas[row + t], second_areas[column + t])
        common = 0
        for t in range(length):
            if possible < least[pair] * (pixels - possible):
                break
            own_area, other_area = first_areas[row + t], second_areas[column + t]
            if own_area == 0 or other_area == 0 or not _is_comparable(first_sizes, row + t, second_sizes, column + t):
                continue
            shared = _shared_pixels(
                first_ends[first_starts[row + t] : first_starts[row + t + 1]],
                second_ends[second_starts[column + t] : second_starts[column + t + 1]],
            )
            common += shared
            possible += shared - min(own_area, other_area)
            if marks[pair] >= 0 and shared > 0 and 2 * shared >= own_area + other_area - shared:
                marked[marks[pair] + t] = True
        if possible >= least[pair] * (pixels - possible):
            sums[pair] = common, pixels - common
