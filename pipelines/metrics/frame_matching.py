"""Objects and predictions of many frames, matched one to one in each: HOTA's step, compiled."""

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pipelines.datasets.compiled import kernel

_EPSILON = float(np.finfo(np.float64).eps)
_NONE = -1


def assign(
    scores: Float64[np.ndarray, "S"], gt_counts: Int64[np.ndarray, "F"], prediction_counts: Int64[np.ndarray, "F"]
) -> Int64[np.ndarray, "G"]:
    """Returns for each object its prediction, or -1, so that the sum of scores is largest in every frame.

    Of equal sums, those of `scipy.optimize.linear_sum_assignment` are chosen.

    Args:
        scores: of each object of a frame and each of its predictions, frame by frame and object by object.
        gt_counts: objects in each frame.
        prediction_counts: predictions in each frame.
    """
    partners = np.full(gt_counts.sum(), _NONE)
    _assign_frames(scores, gt_counts, prediction_counts, partners)
    return partners


def match(
    similarity: Float64[np.ndarray, "S"],
    gt: Int64[np.ndarray, "G"],
    predicted: Int64[np.ndarray, "P"],
    gt_counts: Int64[np.ndarray, "F"],
    prediction_counts: Int64[np.ndarray, "F"],
) -> tuple[Int64[np.ndarray, "G"], Float64[np.ndarray, "G"]]:
    """Returns each object's prediction, or -1, and their similarity.

    They are matched once per frame, by the largest sum of similarity times the alignment of their tracks over the
    sequence (Sec. 5 of the paper).

    Args:
        similarity: of each object of a frame and each of its predictions, frame by frame and object by object.
        gt: track of each object, numbered from 0.
        predicted: track of each prediction, numbered from 0.
        gt_counts: objects in each frame.
        prediction_counts: predictions in each frame.
    """
    gt_length, predicted_length = np.bincount(gt), np.bincount(predicted)
    potential = np.zeros((len(gt_length), len(predicted_length)))
    _add_shares(similarity, gt, predicted, gt_counts, prediction_counts, potential)
    alignment = potential / (gt_length[:, None] + predicted_length - potential)
    scores, partners, found = np.zeros(len(similarity)), np.full(len(gt), _NONE), np.zeros(len(gt))
    _align(similarity, gt, predicted, gt_counts, prediction_counts, alignment, scores)
    _assign_frames(scores, gt_counts, prediction_counts, partners)
    _look_up(similarity, gt_counts, prediction_counts, partners, found)
    return partners, found


@kernel
def _add_shares(
    similarity: Float64[np.ndarray, "S"],
    gt: Int64[np.ndarray, "G"],
    predicted: Int64[np.ndarray, "P"],
    gt_counts: Int64[np.ndarray, "F"],
    prediction_counts: Int64[np.ndarray, "F"],
    potential: Float64[np.ndarray, "M N"],
) -> None:
    """Adds similarity over what an object and a prediction have with all others of the frame (as an IoU)."""
    g = p = s = 0
    for frame in range(len(gt_counts)):
        rows, columns = gt_counts[frame], prediction_counts[frame]
        of_rows, of_columns = np.zeros(rows), np.zeros(columns)
        for i in range(rows):
            for j in range(columns):
                of_rows[i] += similarity[s + i * columns + j]
                of_columns[j] += similarity[s + i * columns + j]
        for i in range(rows):
            for j in range(columns):
                own = similarity[s + i * columns + j]
                total = of_columns[j] + of_rows[i] - own
                if total > _EPSILON:
                    potential[gt[g + i], predicted[p + j]] += own / total
        g, p, s = g + rows, p + columns, s + rows * columns


@kernel
def _align(
    similarity: Float64[np.ndarray, "S"],
    gt: Int64[np.ndarray, "G"],
    predicted: Int64[np.ndarray, "P"],
    gt_counts: Int64[np.ndarray, "F"],
    prediction_counts: Int64[np.ndarray, "F"],
    alignment: Float64[np.ndarray, "M N"],
    scores: Float64[np.ndarray, "S"],
) -> None:
    """Fills `scores` with similarity times alignment."""
    g = p = s = 0
    for frame in range(len(gt_counts)):
        rows, columns = gt_counts[frame], prediction_counts[frame]
        for i in range(rows):
            for j in range(columns):
                scores[s] = alignment[gt[g + i], predicted[p + j]] * similarity[s]
                s += 1
        g, p = g + rows, p + columns


@kernel
def _look_up(
    similarity: Float64[np.ndarray, "S"],
    gt_counts: Int64[np.ndarray, "F"],
    prediction_counts: Int64[np.ndarray, "F"],
    partners: Int64[np.ndarray, "G"],
    found: Float64[np.ndarray, "G"],
) -> None:
    """Fills `found` with the similarity of each object and its partner."""
    g = p = s = 0
    for frame in range(len(gt_counts)):
        rows, columns = gt_counts[frame], prediction_counts[frame]
        for i in range(rows):
            if partners[g + i] != _NONE:
                found[g + i] = similarity[s + i * columns + partners[g + i] - p]
        g, p, s = g + rows, p + columns, s + rows * columns


@kernel
def _assign_frames(
    scores: Float64[np.ndarray, "S"],
    gt_counts: Int64[np.ndarray, "F"],
    prediction_counts: Int64[np.ndarray, "F"],
    partners: Int64[np.ndarray, "G"],
) -> None:
    """Fills `partners` with positions among all predictions."""
    g = p = s = 0
    for frame in range(len(gt_counts)):
        rows, columns = gt_counts[frame], prediction_counts[frame]
        flipped = columns < rows
        few, many = min(rows, columns), max(rows, columns)
        costs = np.empty((few, many))
        for i in range(rows):
            for j in range(columns):
                if flipped:
                    costs[j, i] = -scores[s + i * columns + j]
                else:
                    costs[i, j] = -scores[s + i * columns + j]
        column_of = _solve(costs)
        for i in range(few):
            if flipped:
                partners[g + column_of[i]] = p + i
            else:
                partners[g + i] = p + column_of[i]
        g, p, s = g + rows, p + columns, s + rows * columns


@kernel
def _solve(costs: Float64[np.ndarray, "n m"]) -> Int64[np.ndarray, "n"]:
    """Returns a column per row with the least sum, as scipy finds it (Crouse, 2016); there are no fewer columns."""
    rows, columns = costs.shape
    u, v = np.zeros(rows), np.zeros(columns)
    shortest, path = np.empty(columns), np.full(columns, _NONE)
    column_of, row_of = np.full(rows, _NONE), np.full(columns, _NONE)
    seen_rows, seen_columns, remaining = (
        np.empty(rows, np.bool_),
        np.empty(columns, np.bool_),
        np.empty(columns, np.int64),
    )
    for row in range(rows):
        for i in range(rows):
            seen_rows[i] = False
        for j in range(columns):
            seen_columns[j], shortest[j] = False, np.inf
        sink, least = _augment(costs, u, v, path, row_of, shortest, row, seen_rows, seen_columns, remaining)
        u[row] += least
        for i in range(rows):
            if seen_rows[i] and i != row:
                u[i] += least - shortest[column_of[i]]
        for j in range(columns):
            if seen_columns[j]:
                v[j] -= least - shortest[j]
        j, i = sink, _NONE
        while i != row:
            i = path[j]
            row_of[j] = i
            column_of[i], j = j, column_of[i]
    return column_of


@kernel
def _augment(
    costs: Float64[np.ndarray, "n m"],
    u: Float64[np.ndarray, "n"],
    v: Float64[np.ndarray, "m"],
    path: Int64[np.ndarray, "m"],
    row_of: Int64[np.ndarray, "m"],
    shortest: Float64[np.ndarray, "m"],
    row: int,
    seen_rows: Bool[np.ndarray, "n"],
    seen_columns: Bool[np.ndarray, "m"],
    remaining: Int64[np.ndarray, "m"],
) -> tuple[int, float]:
    """Finds the shortest path from a row to a free column; returns that column and the path's length."""
    count = costs.shape[1]
    for it in range(count):
        remaining[it] = count - it - 1  # so that equal costs give the identity
    least, sink = 0.0, _NONE
    while sink == _NONE:
        index, lowest = _NONE, np.inf
        seen_rows[row] = True
        for it in range(count):
            j = remaining[it]
            length = least + costs[row, j] - u[row] - v[j]
            if length < shortest[j]:
                path[j] = row
                shortest[j] = length
            # Of equally near columns, a free one ends the path.
            if shortest[j] < lowest or (shortest[j] == lowest and row_of[j] == _NONE):
                lowest, index = shortest[j], it
        least, j = lowest, remaining[index]
        if row_of[j] == _NONE:
            sink = j
        else:
            row = row_of[j]
        seen_columns[j] = True
        count -= 1
        remaining[index] = remaining[count]
    return sink, least
