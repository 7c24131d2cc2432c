"""Objects and predictions of many frames, matched one to one in each: HOTA's step.

Pairs are those of an object of a frame and a prediction of the same frame, frame by frame and object by object.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.optimize import linear_sum_assignment

EPSILON = np.finfo(np.float64).eps


def sides_of_pairs(
    gt_counts: Int64[np.ndarray, " F"], prediction_counts: Int64[np.ndarray, " F"]
) -> tuple[Int64[np.ndarray, "S"], Int64[np.ndarray, "S"]]:
    """Returns the positions of the object and of the prediction of each pair.

    Args:
        gt_counts: objects in each frame.
        prediction_counts: predictions in each frame.
    """
    lengths = np.repeat(prediction_counts, gt_counts)
    firsts = np.repeat(prediction_counts.cumsum() - prediction_counts, gt_counts)
    within = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    return np.repeat(np.arange(len(lengths)), lengths), np.repeat(firsts, lengths) + within


@dataclass(frozen=True, kw_only=True, eq=False)
class FramePairs:
    """The objects and predictions of F frames, frame by frame.

    Attributes:
        gt_ids: ids of the objects' tracks, each once in a frame.
        prediction_ids: ids of the predictions' tracks, each once in a frame.
        gt_counts: objects in each frame.
        prediction_counts: predictions in each frame.
        similarity: similarity of each object of a frame to each of its predictions, 0 to 1, object by object.
    """

    gt_ids: Int64[np.ndarray, "G"]
    prediction_ids: Int64[np.ndarray, "P"]
    gt_counts: Int64[np.ndarray, " F"]
    prediction_counts: Int64[np.ndarray, " F"]
    similarity: Float64[np.ndarray, "S"]

    @cached_property
    def sides(self) -> tuple[Int64[np.ndarray, "S"], Int64[np.ndarray, "S"]]:
        """The positions of the object and of the prediction of each pair."""
        return sides_of_pairs(self.gt_counts, self.prediction_counts)


def assign(frames: FramePairs, scores: Float64[np.ndarray, "S"]) -> Bool[np.ndarray, "S"]:
    """Returns which pairs are matched, so that the sum of scores is largest in every frame; none has a score of 0.

    Args:
        frames: the pairs.
        scores: of each pair, 0 or more.
    """
    gt_place, place = frames.sides
    matched = scores > 0
    choices, rivals = np.bincount(gt_place[matched]), np.bincount(place[matched])
    contested = np.flatnonzero(matched)
    contested = contested[(choices[gt_place[contested]] > 1) | (rivals[place[contested]] > 1)]
    pairs = frames.gt_counts * frames.prediction_counts
    starts = pairs.cumsum() - pairs
    for frame in np.unique(np.searchsorted(starts, contested, side="right") - 1).tolist():
        own = slice(starts[frame], starts[frame] + pairs[frame])
        in_frame = scores[own].reshape(frames.gt_counts[frame], frames.prediction_counts[frame])
        row, column = linear_sum_assignment(in_frame, maximize=True)
        chosen = np.zeros(in_frame.shape, bool)
        chosen[row, column] = True
        matched[own] &= chosen.ravel()
    return matched


def match(frames: FramePairs, gt: Int64[np.ndarray, "G"], predicted: Int64[np.ndarray, "P"]) -> Bool[np.ndarray, "S"]:
    """Returns which pairs are matched; none has a similarity of 0.

    They are matched once per frame, by the largest sum of similarity times the alignment of their tracks over the
    sequence (Sec. 5 of the paper).

    Args:
        frames: the pairs.
        gt: track of each object, numbered from 0.
        predicted: track of each prediction, numbered from 0.
    """
    (gt_place, place), similarity = frames.sides, frames.similarity
    gt_length, predicted_length = np.bincount(gt), np.bincount(predicted)
    of_gt = np.bincount(gt_place, similarity, len(gt))
    of_predicted = np.bincount(place, similarity, len(predicted))
    # what the two have in common, over what either has with all others of the frame, as an IoU
    total = of_predicted[place] + of_gt[gt_place] - similarity
    share = np.divide(similarity, total, out=np.zeros(len(total)), where=total > EPSILON)
    tracks = gt[gt_place] * len(predicted_length) + predicted[place]
    potential = np.bincount(tracks, share, len(gt_length) * len(predicted_length))
    lengths = (gt_length[:, None] + predicted_length).ravel()
    alignment = potential / (lengths - potential)
    return assign(frames, alignment[tracks] * similarity)
