"""How far the numbers of Shapes would move with other videos: a bootstrap over videos.

Objects of a video are seen together and predicted together, so that whole videos are drawn, with replacement.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from pipelines.datasets.annotations import GroundTruth, PredictedTrack
from pipelines.metrics.open_vocabulary import match_as_one_ranking
from pipelines.metrics.resampling import Ranking, draw, rankings, resampled_ap, resampled_recall
from pipelines.metrics.rules import EMPTY_MEAN, OPEN_VOCABULARY
from pipelines.metrics.track_matching import match_tracks
from pipelines.metrics.track_naming import NamedTracks, name_tracks, right_names, share_masks

MACRO = ("AP", "base/AP", "novel/AP")
NAMES = (*MACRO, "micro/AP", "top1", "agnostic/AP", "agnostic/AR10")
"""Numbers of `open_vocabulary` that have intervals."""

_ENDS = (2.5, 97.5)  # percentiles

_Weights = Int64[np.ndarray, "R V"]
_Draws = Float64[np.ndarray, "R"]


class Difference(NamedTuple):
    """A mean difference, a fraction, the ends of its 95 % interval, and the differences that it is the mean of."""

    value: float
    low: float
    high: float
    each: tuple[float, ...]


def confidence_intervals(
    ground_truth: GroundTruth,
    tracks: Sequence[PredictedTrack],
    names: Sequence[str] = NAMES,
    *,
    resamples: int = 200,
    seed: int = 0,
    threads: int = 1,
) -> dict[str, tuple[float, float]]:
    """Returns 95 % percentile intervals of numbers of `open_vocabulary`, as fractions; -1, -1 where there is no number.

    A mean over categories is over those that have objects in the videos that were drawn.

    Args:
        ground_truth: the objects.
        tracks: the predictions.
        names: some of `NAMES`.
        resamples: how often as many videos as there are get drawn.
        seed: seed of the draws, which are the same for all names.
        threads: threads to match in; the numbers do not depend on it.

    Raises:
        ValueError: an unknown name, no resamples, no videos, or as `match_tracks`.
    """
    weights = draw(len(ground_truth.videos), resamples, seed)
    draws = _draws(ground_truth, tracks, names, weights, threads)
    return {name: _ends(values[values != EMPTY_MEAN]) for name, values in draws.items()}


def paired_difference(
    ground_truth: GroundTruth,
    pairs: Sequence[tuple[Sequence[PredictedTrack], Sequence[PredictedTrack]]],
    *,
    name: str = "AP",
    resamples: int = 1000,
    seed: int = 0,
    threads: int = 1,
) -> Difference:
    """Returns a number of one method's predictions minus that of another's, with its 95 % interval.

    Every draw has the same videos for both, so that what makes a video hard for both cancels out, and as many pairs as
    there are, drawn with replacement as well. If the interval excludes 0, other videos and other trainings would most
    likely give the same order; with a single training, it says nothing about others.

    Args:
        ground_truth: the objects.
        pairs: predictions of both methods, of one or several trainings; the difference is the mean over the pairs.
        name: one of `NAMES`.
        resamples: how often as many videos, and pairs, as there are get drawn.
        seed: seed of the draws.
        threads: threads to match in; the numbers do not depend on it.

    Raises:
        ValueError: no objects to average over, or as `confidence_intervals`.
    """
    videos = len(ground_truth.videos)
    weights = np.concatenate([draw(videos, resamples, seed), np.ones((1, videos), np.int64)])
    differences = []
    for pair in pairs:
        a, b = (_draws(ground_truth, tracks, [name], weights, threads)[name] for tracks in pair)
        if a[-1] == EMPTY_MEAN:
            raise ValueError(
                f"name: {ground_truth.path} has no objects that {name} is a mean over; choose another number"
            )
        differences.append(np.where(a == EMPTY_MEAN, np.nan, a - b))  # where one has no number, no other has
    drawn, each = np.stack(differences)[:, :-1], tuple(float(difference[-1]) for difference in differences)
    mean = (draw(len(pairs), resamples, seed + 1).T * drawn).mean(0)  # not the random numbers of the videos
    low, high = _ends(mean[~np.isnan(mean)])
    return Difference(float(np.mean(each)), low, high, each)


def _ends(values: Float64[np.ndarray, "n"]) -> tuple[float, float]:
    if not values.size:
        return EMPTY_MEAN, EMPTY_MEAN
    low, high = np.percentile(values, _ENDS).tolist()
    return low, high


def _draws(
    ground_truth: GroundTruth, tracks: Sequence[PredictedTrack], names: Sequence[str], weights: _Weights, threads: int
) -> dict[str, _Draws]:
    """Returns the numbers of R draws."""
    if unknown := [name for name in names if name not in NAMES]:
        raise ValueError(f"names: unknown value {unknown[0]!r}; choose from {', '.join(NAMES)}")
    predictions = share_masks(tracks)
    numbers: dict[str, _Draws] = {}
    if set(MACRO) & set(names):
        matches = list(match_tracks(ground_truth, predictions, OPEN_VOCABULARY, threads=threads))
        numbers |= _macro(ground_truth, rankings(ground_truth, predictions, matches, OPEN_VOCABULARY), weights)
    if "micro/AP" in names:
        _, matches = match_as_one_ranking(ground_truth, predictions, threads=threads)
        ranked = rankings(ground_truth, predictions, matches, replace(OPEN_VOCABULARY, categories=False))
        numbers["micro/AP"] = _mean(ranked.values(), weights)
    if {"top1", "agnostic/AP", "agnostic/AR10"} & set(names):
        named = name_tracks(ground_truth, predictions, threads=threads)
        ranked = rankings(ground_truth, named.tracks, named.matches, named.rules)
        numbers["agnostic/AP"] = _mean(ranked.values(), weights)
        recalls = [resampled_recall(ranking, weights, limit=10) for ranking in ranked.values()]
        numbers["agnostic/AR10"] = recalls[0] if recalls else np.full(len(weights), EMPTY_MEAN)
        numbers["top1"] = _top1(ground_truth, named, weights)
    return {name: numbers[name] for name in names}


def _macro(ground_truth: GroundTruth, ranked: dict[int, Ranking], weights: _Weights) -> dict[str, _Draws]:
    partitions = [one.partition or 0 for one in sorted(ground_truth.categories, key=lambda category: category.id)]
    base, novel = ([one for row, one in ranked.items() if (partitions[row] > 1) == side] for side in (False, True))
    return dict(zip(MACRO, (_mean(some, weights) for some in (ranked.values(), base, novel)), strict=True))


def _mean(ranked: Iterable[Ranking], weights: _Weights) -> _Draws:
    """Returns, per draw, the mean over the rankings that have objects in it."""
    total, count = np.zeros(len(weights)), np.zeros(len(weights))
    for ranking in ranked:
        values = resampled_ap(ranking, weights)
        total += np.where(values == EMPTY_MEAN, 0, values)
        count += values != EMPTY_MEAN
    return np.where(count > 0, total / np.maximum(count, 1), EMPTY_MEAN)


def _top1(ground_truth: GroundTruth, named: NamedTracks, weights: _Weights) -> _Draws:
    places = {video.id: place for place, video in enumerate(ground_truth.videos)}
    videos = np.array([places[track.video_id] for track in ground_truth.tracks], np.int64)
    right = right_names(ground_truth, named)
    hits, objects = (weights @ np.bincount(videos[chosen], minlength=len(places)) for chosen in (right, named.counted))
    return np.where(objects > 0, hits / np.maximum(objects, 1), EMPTY_MEAN)
