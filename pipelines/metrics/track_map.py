"""TrackMAP of BURST (Athar et al., WACV 2023) and TAO: average precision of tracks by the IoU of their masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pipelines.datasets.burst import BurstDetections, BurstSequence
from pipelines.metrics.burst_preparation import known_categories, tracks
from pipelines.metrics.frame_matching import EPSILON
from pipelines.metrics.rules import EMPTY_MEAN
from pipelines.metrics.tube_iou import Tubes, compare

# Not linspace: the sums drift upwards, so that an IoU of exactly 0.85, 0.9 or 0.95 does not reach its threshold.
THRESHOLDS = np.arange(0.5, 0.96, 0.05)
RECALLS = np.linspace(0, 1, 101)
_AREAS = {"area_s": (0, 32**2), "area_m": (32**2, 96**2), "area_l": (96**2, 1e10)}  # mean pixels of a track's masks
_LENGTHS = {"time_s": (0, 3), "time_m": (3, 10), "time_l": (10, 1e5)}  # masks of a track
RANGES = ("all", *_AREAS, *_LENGTHS)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackMatches:
    """Predicted tracks of a sequence and category, best score first, in R ranges at T thresholds.

    Attributes:
        score: score of each track.
        matched: whether a track has matched an object.
        ignored: whether a track is neither right nor wrong.
        objects: number of objects to find.
    """

    score: Float64[np.ndarray, "D"]
    matched: Bool[np.ndarray, "R T D"]
    ignored: Bool[np.ndarray, "R T D"]
    objects: Int64[np.ndarray, "R"]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tracks:
    """Tracks of a sequence in the order of their first masks.

    Attributes:
        id: id of each track.
        category: category of its first mask.
        score: mean over its masks.
        outside: whether it is outside of each of the ranges, whose ends are inside.
        tubes: its masks.
    """

    id: Int64[np.ndarray, "n"]
    category: Int64[np.ndarray, "n"]
    score: Float64[np.ndarray, "n"]
    outside: Bool[np.ndarray, "R n"]
    tubes: Tubes


def match_tracks(
    sequence: BurstSequence, predicted: BurstDetections, categories: frozenset[int]
) -> dict[int, TrackMatches]:
    """Returns matches by category, of the categories that are in the sequence or negative."""
    known = known_categories(sequence, categories)
    gt, guesses = _tracks(sequence, sequence.objects, known), _tracks(sequence, predicted, known)
    pairs = np.argwhere(gt.category[:, None] == guesses.category)
    iou = np.zeros((len(gt.id), len(guesses.id)))
    iou[pairs[:, 0], pairs[:, 1]] = compare(gt.tubes, guesses.tubes, pairs).iou
    matches = {}
    for category in known & {*gt.category.tolist(), *guesses.category.tolist()}:
        rows, columns = np.flatnonzero(gt.category == category), np.flatnonzero(guesses.category == category)
        columns = columns[np.argsort(-guesses.score[columns], kind="stable")]
        matched, ignored = _match(iou[np.ix_(rows, columns)], gt.outside[:, rows], guesses.id[columns] > 0)
        spared = guesses.outside[:, None, columns] | (category in sequence.not_exhaustive)
        matches[category] = TrackMatches(
            score=guesses.score[columns],
            matched=matched,
            ignored=ignored | (spared & ~matched),
            objects=(~gt.outside[:, rows]).sum(1),
        )
    return matches


def average_precision(
    parts: Sequence[TrackMatches],
) -> tuple[Float64[np.ndarray, "R T"], Float64[np.ndarray, "R T"]]:
    """Returns AP and the recall of all predictions, in each range at each threshold; -1 in ranges without objects."""
    order = np.argsort(-np.concatenate([part.score for part in parts]), kind="stable")
    matched = np.concatenate([part.matched for part in parts], axis=2)[..., order]
    counted = ~np.concatenate([part.ignored for part in parts], axis=2)[..., order]
    objects = np.sum([part.objects for part in parts], axis=0)
    tp, fp = (matched & counted).cumsum(2), (~matched & counted).cumsum(2)
    precision = tp / (fp + tp + np.spacing(1))
    precision = np.maximum.accumulate(precision[..., ::-1], axis=2)[..., ::-1]
    ap, ar = np.full(tp.shape[:2], EMPTY_MEAN), np.full(tp.shape[:2], EMPTY_MEAN)
    for here in np.ndindex(ap.shape):
        if total := objects[here[0]]:
            recall = tp[here] / total
            ap[here] = np.append(precision[here], 0)[np.searchsorted(recall, RECALLS)].mean()
            ar[here] = recall[-1] if len(recall) else 0
    return ap, ar


def _tracks(sequence: BurstSequence, detections: BurstDetections, categories: frozenset[int]) -> _Tracks:
    built = tracks(sequence, detections, categories)
    tubes = Tubes([track.masks for track in built])
    length = tubes.sum((tubes.masks.sizes[:, 0] > 0).astype(np.int64))
    outside = [np.zeros(len(length), bool)]
    for values, ranges in ((tubes.area / length, _AREAS), (length, _LENGTHS)):  # masks without pixels are counted
        outside += [(values < low) | (values > high) for low, high in ranges.values()]
    return _Tracks(
        id=np.array([track.id for track in built], np.int64),
        category=np.array([track.category for track in built], np.int64),
        score=np.array([track.score for track in built], np.float64),
        outside=np.array(outside),
        tubes=tubes,
    )


def _match(
    iou: Float64[np.ndarray, "G D"], outside: Bool[np.ndarray, "R G"], takes: Bool[np.ndarray, "D"]
) -> tuple[Bool[np.ndarray, "R T D"], Bool[np.ndarray, "R T D"]]:
    """Returns whether each prediction, from the best on, matches an object, and whether that is outside of the range.

    A prediction takes the free object of largest IoU, of equal ones the last; those outside of the range only if there
    is no other.
    """
    shape = len(outside), len(THRESHOLDS), iou.shape[1]
    matched, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    taken = np.zeros((*shape[:2], len(iou)), bool)
    for prediction in range(iou.shape[1]):
        best = np.tile(THRESHOLDS, (len(outside), 1))
        match = np.full(shape[:2], -1)
        for is_outside in (False, True):
            open_ = match < 0 if is_outside else np.ones(shape[:2], bool)
            for row in np.flatnonzero(iou[:, prediction] >= THRESHOLDS[0] - EPSILON):
                better = open_ & (outside[:, row, None] == is_outside) & ~taken[..., row]
                better &= iou[row, prediction] >= best - EPSILON
                best[better], match[better] = iou[row, prediction], row
        matched[..., prediction] = match >= 0
        ranges, thresholds = np.nonzero(match >= 0)
        rows = match[ranges, thresholds]
        ignored[ranges, thresholds, prediction] = outside[ranges, rows]
        taken[ranges, thresholds, rows] = takes[prediction]
    return matched, ignored
