"""The evaluation of BURST (Athar et al., WACV 2023), as its `run.py` and TrackEval do it.

HOTA's family is computed per frame, and BURST's evaluator scores boxes there, not masks: the boxes around the masks,
cut to whole pixels. TrackMAP, the table's AP, compares masks over whole tracks. Both are computed per category.

Annotations are federated: a sequence has the categories that are annotated in it, those that are known to be absent
(negative), and all others, of which nothing is known, so that predictions of them cost nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64

from pipelines.datasets.burst import COMMON, BurstDetections, BurstGroundTruth, BurstPredictions, BurstSequence
from pipelines.datasets.mask_table import read
from pipelines.metrics.burst_preparation import (
    evaluated,
    evaluated_categories,
    limited,
    merged,
    ranking_order,
    with_own_ids,
)
from pipelines.metrics.frame_matching import EPSILON, FramePairs, assign, sides_of_pairs
from pipelines.metrics.hota import (
    HotaSums,
    box_iou,
    class_average,
    hota_sums,
    mask_iou,
)
from pipelines.metrics.rules import EMPTY_MEAN
from pipelines.metrics.track_map import RANGES, TrackMatches, average_precision, match_tracks

_OBJECT = 1  # the category of everything in the open world; lists of categories are still looked up with it
_COUNTS = ("Dets", "GT_Dets", "IDs", "GT_IDs")

_FEDERATED = {"class_guided": True, "exemplar_guided": False}
"""Whether HOTA of a task spares predictions of categories of which nothing is known."""


def guided(ground_truth: BurstGroundTruth, predictions: BurstPredictions, *, strict: bool = False) -> dict[str, float]:
    """Scores of tracks with categories.

    `class_guided/HOTA|DetA|AssA|AP/all|common|uncommon` is BURST's table, in percent: means over the categories with
    ground truth, without the 45 that are not evaluated; -1 where there is none. `class_guided/mask_HOTA/...`
    is not BURST's: HOTA with the IoU of masks in place of boxes. The rest are fractions: `cls_av` (means over
    categories), `det_av` (all detections as one category), `cat/ID`.

    `exemplar_guided/...` are the same for predictions that follow given objects. Categories still come from the
    predictions, as in BURST's evaluator; the difference is that HOTA counts predictions of categories of which nothing
    is known as wrong.

    Args:
        ground_truth: the file with all categories.
        predictions: read for this ground truth.
        strict: counts a prediction with track id 0 like others. In BURST's evaluator, if no other sequence has that
            id, its object can be matched again, and duplicates of the track are right.

    Raises:
        ValueError: no object of an evaluated category.
    """
    sequences = [evaluated(sequence) for sequence in ground_truth.sequences]
    categories = scored_categories(ground_truth, sequences)
    predicted = with_own_ids([merged(limited(rows)) for rows in predictions.sequences], strict)
    parts = _evaluate(sequences, predicted, categories, federated=list(_FEDERATED.values()), masks=True)
    tables = zip(_FEDERATED, map(_table, parts), strict=True)
    return {f"{task}/{name}": value for task, table in tables for name, value in table.items()}


def scored_categories(ground_truth: BurstGroundTruth, sequences: Sequence[BurstSequence]) -> frozenset[int]:
    """Returns the categories that have a score.

    Args:
        ground_truth: the file that the sequences are from.
        sequences: what `evaluated` leaves of them.

    Raises:
        ValueError: there is none.
    """
    categories = evaluated_categories(sequences)
    if not categories:
        raise ValueError(f"{ground_truth.path}: no object of an evaluated category; use a file with some")
    return categories


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
    scores: dict[str, float] = {}
    for split, truth in splits.items():
        sequences = [replace(one, objects=_as_one(one.objects)) for one in map(evaluated, truth.sequences)]
        predicted = [_as_one(limited(rows)) for rows in predictions.aligned(ground_truth, truth).sequences]
        (parts,) = _evaluate(sequences, predicted, frozenset({_OBJECT}), federated=[True], masks=False)
        detail = HotaSums.pool([part.boxes for part in parts[_OBJECT]]).summary()
        if not any(len(sequence.objects) for sequence in sequences):
            detail = dict.fromkeys(detail, EMPTY_MEAN)
        scores |= {f"open_world/detail/{split}/{name}": value for name, value in detail.items()}
        for name in ("OWTA", "DetRe", "AssA"):
            scores[f"open_world/{name}/{split}"] = detail[name] * (100 if detail[name] > EMPTY_MEAN else 1)
    return scores


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """A sequence's share of a category: HOTA of boxes and of masks, the numbers of _COUNTS, matches of tracks."""

    boxes: HotaSums
    masks: HotaSums
    counts: Int64[np.ndarray, "4"]
    tracks: TrackMatches | None


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
    sequences: Sequence[BurstSequence],
    predicted: Sequence[BurstDetections],
    categories: frozenset[int],
    *,
    federated: Sequence[bool],
    masks: bool,
) -> list[dict[int, list[_Part]]]:
    """Returns each sequence's share of each category, for HOTA that is federated or not.

    Args:
        sequences: what is annotated.
        predicted: the predictions for each of them.
        categories: those to evaluate.
        federated: whether HOTA spares categories of which nothing is known; once for each result.
        masks: whether masks are compared.
    """
    parts: list[dict[int, list[_Part]]] = [{category: [] for category in sorted(categories)} for _ in federated]
    for number in ranking_order(sequences):
        sequence, own = sequences[number], predicted[number]
        tracks = match_tracks(sequence, own, categories) if masks else {}
        compared = _Comparison(sequence, own, masks)
        for category in categories & {*sequence.objects.category_id.tolist(), *own.category_id.tolist()}:
            whole = compared.frames(category)
            for results, is_federated in zip(parts, federated, strict=True):
                boxes, *others = [_federated(each, sequence, category) for each in whole] if is_federated else whole
                if len(boxes.gt_counts) or category in tracks:
                    part = _Part(
                        boxes=hota_sums(boxes),
                        masks=HotaSums.pool([hota_sums(each) for each in others]),
                        counts=_counts(boxes),
                        tracks=tracks.get(category),
                    )
                    results[category].append(part)
    return parts


class _Comparison:
    """Objects and predictions of a sequence that are in the same frame, by the IoU of boxes and maybe of masks.

    Args:
        sequence: the objects.
        predicted: the predictions.
        masks: whether masks are compared, too.
    """

    def __init__(self, sequence: BurstSequence, predicted: BurstDetections, masks: bool) -> None:
        self._sides = sequence.objects, predicted
        self._boxes = [side.sides() for side in self._sides]
        self._masks = (read([sequence.objects.masks]), read([predicted.masks])) if masks else None
        frames = np.unique(sequence.objects.frame)
        frames = frames[np.argsort(sequence.times[frames], kind="stable")]
        self._count, self._place = len(frames), np.full(len(sequence.times), -1)
        self._place[frames] = np.arange(len(frames))

    def frames(self, category: int) -> list[FramePairs]:
        """Returns a category's frames that have any object, in time, by boxes and then by masks."""
        (gt, gt_counts), (predicted, prediction_counts) = (self._rows(side, category) for side in self._sides)
        gt_place, place = sides_of_pairs(gt_counts, prediction_counts)
        rows, columns = gt[gt_place], predicted[place]
        similarities = [box_iou(self._boxes[0][rows], self._boxes[1][columns])]
        if self._masks:
            similarities.append(mask_iou(*self._masks, rows, columns))
        return [
            FramePairs(
                gt_ids=self._sides[0].track_id[gt],
                prediction_ids=self._sides[1].track_id[predicted],
                gt_counts=gt_counts,
                prediction_counts=prediction_counts,
                similarity=similarity,
            )
            for similarity in similarities
        ]

    def _rows(self, side: BurstDetections, category: int) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, " F"]]:
        """Returns the rows of a category, frame by frame, and how many each frame has."""
        places = self._place[side.frame]
        rows = np.flatnonzero((side.category_id == category) & (places >= 0))
        rows = rows[np.argsort(places[rows], kind="stable")]
        return rows, np.bincount(places[rows], minlength=self._count)


def _federated(frames: FramePairs, sequence: BurstSequence, category: int) -> FramePairs:
    """Leaves out predictions of a category where nothing is known.

    That is in frames without an object of it unless it is negative and, if not every object of it is annotated,
    wherever no object is matched.
    """
    known = (frames.gt_counts > 0) | (category in sequence.negative)
    frame = np.repeat(np.arange(len(known)), frames.prediction_counts)
    _, place = frames.sides
    kept = known[frame]
    if category in sequence.not_exhaustive:
        likely = np.where(frames.similarity < 0.5 - EPSILON, 0, frames.similarity)
        matched = assign(frames, likely)
        kept &= np.isin(np.arange(len(kept)), place[matched])
    return FramePairs(
        gt_ids=frames.gt_ids,
        prediction_ids=frames.prediction_ids[kept],
        gt_counts=frames.gt_counts[known],
        prediction_counts=np.bincount(frame[kept], minlength=len(known))[known],
        similarity=frames.similarity[kept[place]],
    )


def _counts(frames: FramePairs) -> Int64[np.ndarray, "4"]:
    """Detections, objects, and the tracks of both."""
    ids = frames.prediction_ids, frames.gt_ids
    return np.array([*map(len, ids), *(len(np.unique(each)) for each in ids)])


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
