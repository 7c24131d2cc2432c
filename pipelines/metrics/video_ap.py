"""Average precision of video instance segmentation: YouTube-VIS, OVIS, LV-VIS and UVO.

The numbers are those of YTVOSeval (youtubevos/cocoapi) and of LVVISeval (haochenheheda/LVVIS), rounding aside.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float64

from pipelines.datasets.annotations import GroundTruth, PredictedTrack
from pipelines.metrics.rules import EMPTY_MEAN, ApRules
from pipelines.metrics.track_matching import AREAS, THRESHOLDS, Matches, match_tracks

RECALLS = np.linspace(0, 1, 101)  # of average precision; these floats, not k / 100: recalls often fall exactly on them
_SIZES = {"s": 1, "m": 2, "l": 3}  # positions of area ranges; 0 is all


def video_ap(
    ground_truth: GroundTruth, predictions: Sequence[PredictedTrack], rules: ApRules, *, threads: int = 1
) -> dict[str, float]:
    """Returns the numbers of a benchmark, as fractions; -1 where there is nothing to average.

    AP, AP50, AP75      mean average precision over IoU thresholds 0.5, 0.55, …, 0.95; at 0.5; at 0.75
    APs, APm, APl       of objects with a mean area up to 128², from 128² to 256², from 256² pixels; AP50s, … at 0.5
    AR1, AR10, AR100    recall with at most 1, 10, 100 predictions per video and category (the limits of the rules)
    ARs, ARm, ARl       recall with the last limit
    AP@0.50, AR100@…    at one IoU threshold
    AP/cat/ID           of one category; also AP50, APs, APm, APl, AR1, AR10, AR100
    mAP_overall, mAP_base, mAP_novel, base/NAME, novel/NAME     with partitions: the first twelve of those categories

    Categories without ground truth are left out, and their predictions do not count; those with ground truth but
    without predictions are 0. AP means the last limit of the rules (the official tools have -1 if that is not 100).

    Args:
        ground_truth: the objects.
        predictions: in the order of the file.
        rules: the benchmark's rules.
        threads: number of threads; the numbers do not depend on it.

    Raises:
        ValueError: as `match_tracks`; a category without a partition, or partitions that the official tool would mix
            up, if the rules have partitions.
    """
    return average_precision(ground_truth, match_tracks(ground_truth, predictions, rules, threads=threads), rules)


def average_precision(ground_truth: GroundTruth, matches: Iterable[Matches], rules: ApRules) -> dict[str, float]:
    """Returns what `video_ap` does, from the matches of all videos in their order.

    Raises:
        ValueError: as `video_ap`.
    """
    ids = sorted(category.id for category in ground_truth.categories)
    partitions = partition_rows(ground_truth) if rules.partitions else {}
    precision, recall = cells(ground_truth, list(matches), rules)
    last = rules.max_detections[-1]
    numbers = _summary(precision, recall, rules)
    for t, threshold in enumerate(THRESHOLDS):
        numbers[f"AP@{threshold:.2f}"] = _mean(precision[:, 0, t])
        numbers[f"AR{last}@{threshold:.2f}"] = _mean(recall[:, 0, t, -1])
    for name, area in _SIZES.items():
        numbers[f"AP50{name}"] = _mean(precision[:, area, 0])
    if rules.categories:
        for k, category in enumerate(ids):
            own = _summary(precision[k : k + 1], recall[k : k + 1], rules)
            for name in ("AP", "AP50", "APs", "APm", "APl", *(f"AR{limit}" for limit in rules.max_detections)):
                numbers[f"{name}/cat/{category}"] = own[name]
    if partitions:
        numbers["mAP_overall"] = numbers["AP"]
    for partition, rows in partitions.items():
        part = _summary(precision[rows], recall[rows], rules)
        numbers |= {f"{partition}/{name}": value for name, value in part.items()}
        numbers[f"mAP_{partition}"] = part["AP"]
    return numbers


def partition_rows(ground_truth: GroundTruth) -> dict[str, list[int]]:
    """Returns the rows of base and novel categories, as LVVISeval selects them: the category id - 1.

    Raises:
        ValueError: a category is neither, or ids are not numbered from 1 without gaps.
    """
    ids = sorted(category.id for category in ground_truth.categories)
    rows: dict[str, list[int]] = {"base": [], "novel": []}
    for category in ground_truth.categories:
        if category.partition not in (0, 1, 2, 3):
            raise ValueError(
                f"{ground_truth.path}: category {category.id} has the partition {category.partition}; LV-VIS needs 0 or"
                f" 1 for base categories, 2 or 3 for novel ones"
            )
        rows["base" if category.partition < 2 else "novel"].append(ids.index(category.id))
    whole = all(category.stated_id is None for category in ground_truth.categories)
    if not whole or any(sorted(ids[row] - 1 for row in part) != sorted(part) for part in rows.values()):
        named = f"ids {ids[0]} to {ids[-1]} of {len(ids)} categories" if whole else "ids that are not whole numbers"
        raise ValueError(
            f"{ground_truth.path}: {named}; LVVISeval finds base and novel categories by id - 1, so number them from 1"
            f" without gaps"
        )
    return {name: sorted(part) for name, part in rows.items()}


def _summary(
    precision: Float64[np.ndarray, "K A T"], recall: Float64[np.ndarray, "K A T M"], rules: ApRules
) -> dict[str, float]:
    """Returns the twelve statistics of YTVOSeval."""
    at_75 = int(np.flatnonzero(THRESHOLDS == 0.75)[0])
    numbers = {"AP": precision[:, 0], "AP50": precision[:, 0, 0], "AP75": precision[:, 0, at_75]}
    numbers |= {f"AP{name}": precision[:, area] for name, area in _SIZES.items()}
    numbers |= {f"AR{limit}": recall[:, 0, :, m] for m, limit in enumerate(rules.max_detections)}
    numbers |= {f"AR{name}": recall[:, area, :, -1] for name, area in _SIZES.items()}
    return {name: _mean(cells) for name, cells in numbers.items()}


def _mean(cells: Float64[np.ndarray, "*shape"]) -> float:
    present = cells[cells > EMPTY_MEAN]
    return float(present.mean()) if present.size else EMPTY_MEAN


def cells(
    ground_truth: GroundTruth, matches: list[Matches], rules: ApRules
) -> tuple[Float64[np.ndarray, "K A T"], Float64[np.ndarray, "K A T M"]]:
    """Returns average precision and recall per category, area range, IoU threshold (and limit), -1 where absent."""
    K = len(ground_truth.categories) if rules.categories else 1
    A, T, M = len(AREAS), len(THRESHOLDS), len(rules.max_detections)
    precision, recall = np.full((K, A, T), EMPTY_MEAN), np.full((K, A, T, M), EMPTY_MEAN)
    positives = np.zeros((A, K), np.int64)
    for part in matches:
        for area in range(A):
            counted = part.ground_truth_categories[~part.ground_truth_ignored[area]]
            positives[area] += np.bincount(counted, minlength=K)
    if not matches:
        return precision, recall
    rows = np.concatenate([part.prediction_categories for part in matches])
    scores, ranks = (np.concatenate([getattr(part, name) for part in matches]) for name in ("scores", "ranks"))
    ids = np.array([track.id for track in ground_truth.tracks], np.float64)
    judged = [outcomes(part, ids, rules) for part in matches]
    right, wrong = (np.concatenate([outcome[side] for outcome in judged], axis=2) for side in (0, 1))
    # Equal scores keep the order of matches: video id, then rank within the video.
    order = np.lexsort((-scores, rows))
    bounds = np.searchsorted(rows[order], np.arange(K + 1))
    for k in np.flatnonzero(positives.any(0)):
        chosen = order[bounds[k] : bounds[k + 1]]
        own_right, own_wrong, present = right[:, :, chosen], wrong[:, :, chosen], positives[:, k] > 0
        n = positives[present, k]
        for m, limit in enumerate(rules.max_detections):
            hits = own_right[present][:, :, ranks[chosen] < limit].sum(2)
            recall[k, present, :, m] = hits / n[:, None]
        for area in np.flatnonzero(present).tolist():
            precision[k, area] = _average_precision(own_right[area], own_wrong[area], int(positives[area, k]))
    return precision, recall


def outcomes(
    matches: Matches, ids: Float64[np.ndarray, "N"], rules: ApRules
) -> tuple[Bool[np.ndarray, "A T D"], Bool[np.ndarray, "A T D"]]:
    """Returns which predictions are right, and which are wrong; the rest is ignored.

    Args:
        matches: matches of some videos.
        ids: ids of all tracks of the ground truth.
        rules: the benchmark's rules.
    """
    hit, ignored = matches.matched >= 0, np.zeros(matches.matched.shape, bool)
    a, t, d = np.nonzero(hit)
    g = matches.matched[a, t, d]
    ignored[a, t, d] = matches.ground_truth_ignored[a, g]
    if not rules.strict:
        hit[a, t, d] = ids[matches.ground_truths[g]] != 0
    ignored |= ~hit & matches.out_of_range[:, None]
    return hit & ~ignored, ~hit & ~ignored


def _average_precision(
    right: Bool[np.ndarray, "T n"], wrong: Bool[np.ndarray, "T n"], positives: int
) -> Float64[np.ndarray, "T"]:
    """Returns the mean over 101 recalls of the best precision at that recall or above; 0 where it is not reached.

    Precision is best where a prediction is right, so only those places are looked at: the k-th has the recall
    k / positives.
    """
    t, place = np.nonzero(right)
    hits = right.sum(1)
    k = np.arange(1, len(t) + 1) - np.repeat(hits.cumsum() - hits, hits)
    best = np.zeros((len(right), max(int(hits.max(initial=0)), positives) + 1))
    best[t, k - 1] = k / (wrong.cumsum(1)[t, place] + k + np.spacing(1))
    best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
    needed = np.searchsorted(np.arange(positives + 1) / positives, RECALLS)
    return np.asarray(best[:, np.maximum(needed, 1) - 1].mean(1))
