"""Precision and recall of videos drawn with replacement: matched once, counted as often as each video was drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pipelines.datasets.annotations import GroundTruth, PredictedTrack
from pipelines.metrics.rules import EMPTY_MEAN, ApRules
from pipelines.metrics.track_matching import Matches
from pipelines.metrics.video_ap import RECALLS, outcomes


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """Predictions of a category, or of all, best first.

    Attributes:
        videos: of the predictions, positions among the ground truth's videos.
        right: per IoU threshold, whether a prediction is right.
        wrong: per IoU threshold, whether a prediction is wrong; the rest does not count.
        objects: per video, the number of objects that count.
    """

    videos: Int64[np.ndarray, "D"]
    right: Bool[np.ndarray, "T D"]
    wrong: Bool[np.ndarray, "T D"]
    objects: Int64[np.ndarray, "V"]


def draw(videos: int, resamples: int, seed: int) -> Int64[np.ndarray, "R V"]:
    """Returns how often each of V videos is among V that are drawn with replacement, R times.

    Raises:
        ValueError: no videos, or no resamples.
    """
    if resamples < 1 or videos < 1:
        raise ValueError(f"resamples: {resamples} of {videos} videos; give 1 or more of a ground truth with videos")
    return np.random.default_rng(seed).multinomial(videos, np.full(videos, 1 / videos), size=resamples)


def rankings(
    ground_truth: GroundTruth, predictions: Sequence[PredictedTrack], matches: Sequence[Matches], rules: ApRules
) -> dict[int, Ranking]:
    """Returns a ranking per category with objects, by its position among the sorted category ids; 0 if they are one.

    Args:
        ground_truth: the objects.
        predictions: the predictions that were matched.
        matches: matches of all videos.
        rules: the rules of the matches.
    """
    places = {video.id: place for place, video in enumerate(ground_truth.videos)}
    positives: dict[int, Int64[np.ndarray, V]] = {}
    for part in matches:
        for track, category, ignored in zip(
            part.ground_truths.tolist(),
            part.ground_truth_categories.tolist(),
            part.ground_truth_ignored[0].tolist(),
            strict=True,
        ):
            if not ignored:
                objects = positives.setdefault(category, np.zeros(len(places), np.int64))
                objects[places[ground_truth.tracks[track].video_id]] += 1
    ids = np.array([track.id for track in ground_truth.tracks], np.float64)
    judged = [outcomes(part, ids, rules) for part in matches]
    right, wrong = (np.concatenate([outcome[side][0] for outcome in judged], axis=1) for side in (0, 1))
    rows, scores, numbers = (
        np.concatenate([getattr(part, name) for part in matches])
        for name in ("prediction_categories", "scores", "predictions")
    )
    videos = np.array([places[predictions[number].video_id] for number in numbers], np.int64)
    order = np.lexsort((-scores, rows))  # equal scores keep the order of matches, as in `video_ap`
    ranked = {}
    for category, objects in sorted(positives.items()):
        chosen = order[slice(*np.searchsorted(rows[order], (category, category + 1)))]
        ranked[category] = Ranking(
            videos=videos[chosen], right=right[:, chosen], wrong=wrong[:, chosen], objects=objects
        )
    return ranked


def resampled_ap(ranking: Ranking, weights: Int64[np.ndarray, "R V"]) -> Float64[np.ndarray, "R"]:
    """Returns the mean over IoU thresholds as `video_ap` has it, for each draw; -1 where it has no objects.

    A prediction of a video that was drawn several times stands several times in a row. Of these places the last is what
    matters if it is right, since precision and recall are highest there.
    """
    objects, times = weights @ ranking.objects, weights[:, ranking.videos]
    total = np.zeros(len(weights))
    for right, wrong in zip(ranking.right, ranking.wrong, strict=True):
        places = np.flatnonzero(right)
        hits, misses = times[:, places].cumsum(1), (times * wrong).cumsum(1)[:, places]
        best = hits / (misses + hits + np.spacing(1))
        best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
        reached = np.searchsorted(RECALLS, hits / np.maximum(objects, 1)[:, None], side="right")
        total += (best * np.diff(reached, prepend=0)).sum(1) / len(RECALLS)
    return np.where(objects > 0, total / len(ranking.right), EMPTY_MEAN)


def resampled_recall(ranking: Ranking, weights: Int64[np.ndarray, "R V"], *, limit: int) -> Float64[np.ndarray, "R"]:
    """Returns the share of objects that the best `limit` predictions of each video find, for each draw.

    It is the mean over IoU thresholds, and -1 where a draw has no objects.
    """
    order = np.argsort(ranking.videos, kind="stable")
    of_video = ranking.videos[order]
    counted = np.zeros(len(order), np.bool_)
    counted[order] = np.arange(len(order)) - np.searchsorted(of_video, of_video) < limit
    hits = sum(
        (np.bincount(ranking.videos[right & counted], minlength=weights.shape[1]) for right in ranking.right),
        np.zeros(weights.shape[1], np.int64),
    )
    objects = weights @ ranking.objects
    return np.where(objects > 0, weights @ hits / (np.maximum(objects, 1) * len(ranking.right)), EMPTY_MEAN)
