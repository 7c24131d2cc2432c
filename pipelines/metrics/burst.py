"""The evaluation of BURST (Athar et al., WACV 2023), as its `run.py` and TrackEval do it.

HOTA's family is computed per frame, and BURST's evaluator scores boxes there, not masks: the boxes around the masks,
cut to whole pixels. TrackMAP, the table's AP, compares masks over whole tracks. Both are computed per category.

Annotations are federated: a sequence has the categories that are annotated in it, those that are known to be absent
(negative), and all others, of which nothing is known, so that predictions of them cost nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Float64, Int64
from scipy.optimize import linear_sum_assignment

from pipelines.datasets.burst import COMMON, BurstDetections, BurstGroundTruth, BurstPredictions, BurstSequence
from pipelines.datasets.mask_table import read
from pipelines.datasets.run_lengths import boxes as around
from pipelines.metrics.burst_preparation import (
    evaluated,
    evaluated_categories,
    limited,
    merged,
    ranking_order,
    with_own_ids,
)
from pipelines.metrics.hota import EPSILON, FramePair, HotaSums, box_iou, class_average, hota_sums, mask_iou
from pipelines.metrics.rules import EMPTY_MEAN
from pipelines.metrics.track_map import RANGES, TrackMatches, average_precision, match_tracks

_OBJECT = 1  # the category of everything in the open world; lists of categories are still looked up with it
_COUNTS = ("Dets", "GT_Dets", "IDs", "GT_IDs")

_Similarity = Callable[[Int64[np.ndarray, "G"], Int64[np.ndarray, "P"]], Float64[np.ndarray, "G P"]]


def class_guided(
    ground_truth: BurstGroundTruth, predictions: BurstPredictions, *, strict: bool = False
) -> dict[str, float]:
    """Scores of tracks with categories.

    `class_guided/HOTA|DetA|AssA|AP/all|common|uncommon` is BURST's table, in percent: means over the categories with
    ground truth, without the 45 that are not evaluated; -1 where there is none. `class_guided/mask_HOTA/...`
    is not BURST's: HOTA with the IoU of masks in place of boxes. The rest are fractions: `cls_av` (means over
    categories), `det_av` (all detections as one category), `cat/ID`.

    Args:
        ground_truth: the file with all categories.
        predictions: read for this ground truth.
        strict: counts a prediction with track id 0 like others. In BURST's evaluator, if no other sequence has that
            id, its object can be matched again, and duplicates of the track are right.

    Raises:
        ValueError: no object of an evaluated category.
    """
    return _guided("class_guided", ground_truth, predictions, strict, federated=True)


def exemplar_guided(
    ground_truth: BurstGroundTruth, predictions: BurstPredictions, *, strict: bool = False
) -> dict[str, float]:
    """As `class_guided`, for predictions that follow given objects.

    Categories still come from the predictions, as in BURST's evaluator; the difference is that HOTA counts predictions
    of categories of which nothing is known as wrong.
    """
    return _guided("exemplar_guided", ground_truth, predictions, strict, federated=False)


def open_world(
    ground_truth: BurstGroundTruth,
    predictions: BurstPredictions,
    *,
    common: BurstGroundTruth | None = None,
    uncommon: BurstGroundTruth | None = None,
) -> dict[str, float]:
    """Scores of tracks without regard to categories.

    `open_world/OWTA|DetRe|AssA/all|common|uncommon` is BURST's table, in percent; `open_world/detail/SPLIT/...` are
    fractions; -1 where a split has no objects. Objects of the 45 categories that are not evaluated are left out.

    Args:
        ground_truth: the file with all categories.
        predictions: read for this ground truth.
        common: the file with the objects of the 78 common categories; None takes them from `ground_truth`.
        uncommon: the file with the objects of all other categories; None takes them from `ground_truth`.

    Raises:
        ValueError: `common` or `uncommon` has a sequence or frame that `ground_truth` lacks.
    """
    splits = {
        "all": ground_truth,
        "common": common or _subset(ground_truth, in_common=True),
        "uncommon": uncommon or _subset(ground_truth, in_common=False),
    }
    setup = _Setup(categories=frozenset({_OBJECT}), federated=True, masks=False)
    scores: dict[str, float] = {}
    for split, truth in splits.items():
        sequences = [replace(one, objects=_as_one(one.objects)) for one in map(evaluated, truth.sequences)]
        predicted = [_as_one(limited(rows)) for rows in predictions.aligned(ground_truth, truth).sequences]
        parts = _evaluate(sequences, predicted, setup)[_OBJECT]
        detail = HotaSums.pool([part.boxes for part in parts]).summary()
        if not any(len(sequence.objects) for sequence in sequences):
            detail = dict.fromkeys(detail, EMPTY_MEAN)
        scores |= {f"open_world/detail/{split}/{name}": value for name, value in detail.items()}
        for name in ("OWTA", "DetRe", "AssA"):
            scores[f"open_world/{name}/{split}"] = detail[name] * (100 if detail[name] > EMPTY_MEAN else 1)
    return scores


@dataclass(frozen=True, kw_only=True)
class _Setup:
    """The categories; whether HOTA spares those of which nothing is known; whether masks are compared."""

    categories: frozenset[int]
    federated: bool
    masks: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """A sequence's share of a category: HOTA of boxes and of masks, the numbers of _COUNTS, matches of tracks."""

    boxes: HotaSums
    masks: HotaSums
    counts: Int64[np.ndarray, "4"]
    tracks: TrackMatches | None


def _guided(
    task: str,
    ground_truth: BurstGroundTruth,
    predictions: BurstPredictions,
    strict: bool,
    *,
    federated: bool,
) -> dict[str, float]:
    sequences = [evaluated(sequence) for sequence in ground_truth.sequences]
    categories = evaluated_categories(sequences)
    if not categories:
        raise ValueError(f"{ground_truth.path}: no object of an evaluated category; use a file with some")
    predicted = with_own_ids([merged(limited(rows)) for rows in predictions.sequences], strict)
    setup = _Setup(categories=categories, federated=federated, masks=True)
    table = _table(_evaluate(sequences, predicted, setup))
    return {f"{task}/{name}": value for name, value in table.items()}


def _as_one(rows: BurstDetections) -> BurstDetections:
    return replace(rows, category_id=np.full(len(rows), _OBJECT))


def _subset(ground_truth: BurstGroundTruth, *, in_common: bool) -> BurstGroundTruth:
    sequences = [
        replace(
            sequence, objects=sequence.objects.select(np.isin(sequence.objects.category_id, list(COMMON)) == in_common)
        )
        for sequence in ground_truth.sequences
    ]
    return replace(ground_truth, sequences=tuple(sequences))


def _evaluate(
    sequences: Sequence[BurstSequence], predicted: Sequence[BurstDetections], setup: _Setup
) -> dict[int, list[_Part]]:
    """Returns each sequence's share of each category."""
    parts: dict[int, list[_Part]] = {category: [] for category in sorted(setup.categories)}
    for number in ranking_order(sequences):
        for category, part in _evaluate_sequence(setup, sequences[number], predicted[number]).items():
            parts[category].append(part)
    return parts


def _evaluate_sequence(setup: _Setup, sequence: BurstSequence, predicted: BurstDetections) -> dict[int, _Part]:
    objects = sequence.objects
    tracks = match_tracks(sequence, predicted, setup.categories) if setup.masks else {}
    masks = [read([side.masks]) for side in (objects, predicted)]
    boxes = [around(side).astype(np.float64) for side in masks]
    frames_of = partial(_frames, sequence, predicted, setup.federated)
    parts = {}
    for category in setup.categories & {*objects.category_id.tolist(), *predicted.category_id.tolist()}:
        frames = frames_of(category, lambda rows, columns: box_iou(boxes[0][rows], boxes[1][columns]))
        others = []
        if setup.masks:
            others = frames_of(category, partial(mask_iou, masks[0], masks[1]))
        if frames or category in tracks:
            parts[category] = _Part(
                boxes=hota_sums(frames), masks=hota_sums(others), counts=_counts(frames), tracks=tracks.get(category)
            )
    return parts


def _counts(frames: Sequence[FramePair]) -> Int64[np.ndarray, "4"]:
    """Detections, objects, and the tracks of both."""
    ids = [[frame.prediction_ids for frame in frames], [frame.gt_ids for frame in frames]]
    joined = [np.concatenate([np.zeros(0, np.int64), *side]) for side in ids]
    return np.array([*map(len, joined), *(len(np.unique(side)) for side in joined)])


def _frames(
    sequence: BurstSequence, predicted: BurstDetections, federated: bool, category: int, similarity: _Similarity
) -> list[FramePair]:
    """The objects and predictions of a category in frames that have any object, in time.

    If federated, predictions are left out where nothing is known: in frames without an object of the category unless
    it is negative, and, if not every object of it is annotated, wherever no object is matched.
    """
    objects = sequence.objects
    gt, columns = np.flatnonzero(objects.category_id == category), np.flatnonzero(predicted.category_id == category)
    spared = federated and category in sequence.not_exhaustive
    known = not federated or category in sequence.negative
    frames = np.unique(objects.frame if known else objects.frame[gt])
    pairs = []
    for frame in frames[np.argsort(sequence.times[frames], kind="stable")]:
        rows, here = gt[objects.frame[gt] == frame], columns[predicted.frame[columns] == frame]
        scores = similarity(rows, here)
        if spared:
            likely = np.where(scores < 0.5 - EPSILON, 0, scores)
            row, column = linear_sum_assignment(-likely)
            matched = np.sort(column[likely[row, column] > EPSILON])
            here, scores = here[matched], scores[:, matched]
        pairs.append(
            FramePair(gt_ids=objects.track_id[rows], prediction_ids=predicted.track_id[here], similarity=scores)
        )
    return pairs


def _table(parts: Mapping[int, Sequence[_Part]]) -> dict[str, float]:
    """All scores of a task with categories."""
    sums = {category: HotaSums.pool([part.boxes for part in own]) for category, own in parts.items()}
    hota = {category: total.summary() for category, total in sums.items()}
    masks = {category: HotaSums.pool([part.masks for part in own]).summary() for category, own in parts.items()}
    counts = {category: np.sum([part.counts for part in own], axis=0).tolist() for category, own in parts.items()}
    matches = ([part.tracks for part in own if part.tracks] for own in parts.values())
    ap, ar = np.array([average_precision(own) for own in matches]).transpose(1, 2, 3, 0)  # [R, T, categories] each
    tracks = {f"AP_{name}": values for name, values in zip(RANGES, ap, strict=True)}
    tracks |= {f"AR_{name}": values for name, values in zip(RANGES, ar, strict=True)}

    total = {
        f"Count/{name}": float(sum(column))
        for name, column in zip(_COUNTS, zip(*counts.values(), strict=True), strict=True)
    }
    averages = class_average(list(hota.values())) | total
    averages |= {
        f"TrackMAP/{name}": _mean([_mean(per_category) for per_category in values]) for name, values in tracks.items()
    }
    pooled = HotaSums.pool(list(sums.values())).summary() | total
    scores = {f"cls_av/{name}": value for name, value in averages.items()}
    scores |= {f"det_av/{name}": value for name, value in pooled.items()}
    for name in ("HOTA", "DetA", "AssA"):
        scores |= _splits(name, {category: scored[name] for category, scored in hota.items()})
    scores |= _splits("mask_HOTA", {category: scored["HOTA"] for category, scored in masks.items()})
    scores |= _splits("AP", dict(zip(parts, tracks["AP_all"].mean(0).tolist(), strict=True)))
    for number, category in enumerate(parts):
        own = {name: hota[category][name] for name in ("HOTA", "DetA", "AssA", "LocA")}
        own |= {name: float(tracks[name][:, number].mean()) for name in (*(f"AP_{size}" for size in RANGES), "AR_all")}
        own |= dict(zip(_COUNTS, map(float, counts[category]), strict=True))
        scores |= {f"cat/{category}/{name}": value for name, value in own.items()}
    return scores


def _splits(name: str, values: Mapping[int, float]) -> dict[str, float]:
    """Means over all, common and uncommon categories, in percent."""
    common = [value for category, value in values.items() if category in COMMON]
    uncommon = [value for category, value in values.items() if category not in COMMON]
    splits = {"all": list(values.values()), "common": common, "uncommon": uncommon}
    return {f"{name}/{split}": 100 * float(np.mean(some)) if some else EMPTY_MEAN for split, some in splits.items()}


def _mean(values: Sequence[float] | Float64[np.ndarray, "n"]) -> float:
    """Returns the mean of the values that are not themselves means of nothing."""
    present = [value for value in values if value > EMPTY_MEAN]
    return float(np.mean(present)) if present else EMPTY_MEAN
