"""How well a model names objects whose names it has never trained on: the protocol of Shapes.

Average precision per category alone is easily misread: a wrong name costs nothing if nothing in the data set is called
that. So it is reported with numbers that charge every wrong name, and with two controls: names that mean something
else, which must give nothing, and the names of the objects themselves, which no classifier can beat by much.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipelines.datasets.annotations import Category, GroundTruth, PredictedTrack
from pipelines.metrics.rules import EMPTY_MEAN, OPEN_VOCABULARY
from pipelines.metrics.track_matching import Matches, match_tracks
from pipelines.metrics.track_naming import NamedTracks, name_tracks, share_masks, top1
from pipelines.metrics.video_ap import average_precision, video_ap

MIN_TRACKS = 10
"""Tracks of each category that occurs, at least, for a mean over categories to say something."""


def open_vocabulary(
    ground_truth: GroundTruth, tracks: Sequence[PredictedTrack], *, seed: int = 0, threads: int = 1
) -> dict[str, float]:
    """Returns the numbers of the protocol, as fractions; -1 where there is nothing to average.

    AP, base/AP, …      all of `video_ap`: means over categories with objects, also over base and novel ones. A
                        prediction of a category without objects does not count.
    micro/AP, …/AP50    all predictions in one ranking: each is right about an object of its own video and category, or
                        wrong, whatever its category
    top1, matched, …    as `pipelines.metrics.track_naming.top1`
    agnostic/AP, AP50, AR1, AR10    all categories are one; a track counts once, with its best score
    permuted/AP, top1   every name means another category: must be near 0; -1 if there is only one category
    oracle/AP           every track, once, gets the category of the object that it overlaps most: only masks and
                        tracking can still cost anything. A track that overlaps none keeps its best name.
    categories          how many have objects
    min_tracks          objects of the category with the fewest

    All names are counted alike, with no limit to predictions but that of YouTube-VIS in AP (100 per video and
    category). Tracks that are not among the predictions are found by none of these numbers, the oracle's included.

    Args:
        ground_truth: the objects; categories have partitions, and are numbered from 1 without gaps.
        tracks: the predictions: a track occurs once per name, with the same masks.
        seed: seed of the permutation.
        threads: number of threads; the numbers do not depend on it.

    Raises:
        ValueError: as `video_ap`.
    """
    predictions = share_masks(tracks)
    named = name_tracks(ground_truth, predictions, threads=threads)
    everything, matches = match_as_one_ranking(ground_truth, predictions, threads=threads)
    micro = average_precision(everything, matches, replace(OPEN_VOCABULARY, categories=False, partitions=False))
    agnostic = average_precision(ground_truth, named.matches, named.rules)
    oracle = video_ap(ground_truth, _with_true_names(ground_truth, named), OPEN_VOCABULARY, threads=threads)
    return {
        **video_ap(ground_truth, predictions, OPEN_VOCABULARY, threads=threads),
        **{f"micro/{name}": micro[name] for name in ("AP", "AP50")},
        **top1(ground_truth, named),
        **{f"agnostic/{name}": agnostic[name] for name in ("AP", "AP50", "AR1", "AR10")},
        **_permuted(ground_truth, predictions, named, seed=seed, threads=threads),
        "oracle/AP": oracle["AP"],
        **_sizes(ground_truth, named),
    }


def match_as_one_ranking(
    ground_truth: GroundTruth, predictions: Sequence[PredictedTrack], *, threads: int = 1
) -> tuple[GroundTruth, list[Matches]]:
    """Matches predictions to objects of their own video and category; only then all of them become one category.

    Returns:
        The ground truth with all categories that are predicted, and matches for `average_precision` without categories.

    Raises:
        ValueError: as `match_tracks`.
    """
    unlisted = {track.category_id for track in predictions} - {category.id for category in ground_truth.categories}
    more = tuple(Category(id=number, name=f"category {number}") for number in sorted(unlisted))
    everything = replace(ground_truth, categories=(*ground_truth.categories, *more))
    rules = replace(OPEN_VOCABULARY, partitions=False).unlimited(len(predictions))
    matches = [
        replace(
            part,
            ground_truth_categories=np.zeros_like(part.ground_truth_categories),
            prediction_categories=np.zeros_like(part.prediction_categories),
        )
        for part in match_tracks(everything, predictions, rules, threads=threads)
    ]
    return everything, matches


def derangement(ids: Sequence[int], seed: int) -> dict[int, int]:
    """Returns another of the ids for each of them, each once: one cycle through all, drawn by the seed.

    Raises:
        ValueError: fewer than two ids.
    """
    if len(ids) < 2:
        raise ValueError(f"ids: {len(ids)} given; at least 2 are needed for each to become another")
    cycle = np.random.default_rng(seed).permutation(np.array(sorted(ids), np.int64)).tolist()
    return dict(zip(cycle, [*cycle[1:], cycle[0]], strict=True))


def _permuted(
    ground_truth: GroundTruth,
    predictions: Sequence[PredictedTrack],
    named: NamedTracks,
    *,
    seed: int,
    threads: int,
) -> dict[str, float]:
    ids = [category.id for category in ground_truth.categories]
    if len(ids) < 2:
        return {"permuted/AP": EMPTY_MEAN, "permuted/top1": EMPTY_MEAN}
    other = derangement(ids, seed)

    def renamed(tracks: Sequence[PredictedTrack]) -> list[PredictedTrack]:
        return [replace(track, category_id=other.get(track.category_id, track.category_id)) for track in tracks]

    return {
        "permuted/AP": video_ap(ground_truth, renamed(predictions), OPEN_VOCABULARY, threads=threads)["AP"],
        "permuted/top1": top1(ground_truth, replace(named, tracks=renamed(named.tracks)))["top1"],
    }


def _with_true_names(ground_truth: GroundTruth, named: NamedTracks) -> list[PredictedTrack]:
    return [
        track if row < 0 else replace(track, category_id=ground_truth.tracks[row].category_id)
        for track, row in zip(named.tracks, named.nearest.tolist(), strict=True)
    ]


def _sizes(ground_truth: GroundTruth, named: NamedTracks) -> dict[str, float]:
    categories = [track.category_id for track, counts in zip(ground_truth.tracks, named.counted, strict=True) if counts]
    counts = np.unique(np.array(categories, np.int64), return_counts=True)[1]
    return {"categories": float(len(counts)), "min_tracks": float(counts.min()) if counts.size else EMPTY_MEAN}
