"""Finds the object of each predicted track, whatever its name, and whether its best name is right.

A file of predictions lists a track once per name. Predictions with the same masks in the same video are one track.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pipelines.datasets.annotations import GroundTruth, Mask, PredictedTrack
from pipelines.metrics.rules import EMPTY_MEAN, OPEN_VOCABULARY, ApRules
from pipelines.metrics.track_matching import THRESHOLDS, Matches, match_tracks

ATTRIBUTES = ("colour", "texture", "shape")
"""Attributes that the words of a name stand for, if all names have three words."""

_NONE = -1  # no object, no track


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedTracks:
    """Predicted tracks, each once, and the objects that they are of.

    Attributes:
        tracks: in the order in which they first occur, each with its best score and the first name that has it.
        matches: of `tracks` and objects, as one category.
        rules: the rules of `matches`.
        counted: whether an object counts: crowds do not.
        standing: per object that counts the track that stands for it, or -1: a tube IoU of at least 0.5, pairs with the
            largest first, each track for one object at most.
        nearest: per track the object that it overlaps most, of equal ones the first; -1 if it overlaps none.
    """

    tracks: list[PredictedTrack]
    matches: list[Matches]
    rules: ApRules
    counted: Bool[np.ndarray, "N"]
    standing: Int64[np.ndarray, "N"]
    nearest: Int64[np.ndarray, "n"]


def share_masks(predictions: Iterable[PredictedTrack]) -> list[PredictedTrack]:
    """Returns the predictions with one object in memory for masks that are the same, which need not be read twice."""
    seen: dict[tuple[int, Sequence[Mask | None]], Sequence[Mask | None]] = {}
    return [replace(track, masks=seen.setdefault((track.video_id, track.masks), track.masks)) for track in predictions]


def name_tracks(ground_truth: GroundTruth, predictions: Sequence[PredictedTrack], *, threads: int = 1) -> NamedTracks:
    """Puts the names of each track together and finds its object.

    Args:
        ground_truth: the objects.
        predictions: tracks, once per name.
        threads: number of threads; the result does not depend on it.

    Raises:
        ValueError: as `match_tracks`.
    """
    tracks = _distinct(predictions)
    any_category = min((category.id for category in ground_truth.categories), default=None)
    rules = replace(OPEN_VOCABULARY, categories=False, forced_category=any_category, partitions=False)
    rules = rules.unlimited(len(tracks))
    matches = list(match_tracks(ground_truth, tracks, rules, pairs="video", threads=threads))
    counted = np.zeros(len(ground_truth.tracks), bool)
    for part in matches:
        counted[part.ground_truths] = ~part.ground_truth_ignored[0]
    objects = np.concatenate([part.ground_truths[part.pairs[:, 0]] for part in matches])
    predicted = np.concatenate([part.predictions[part.pairs[:, 1]] for part in matches])
    ious = np.concatenate([part.ious for part in matches])
    near = (ious >= THRESHOLDS[0]) & counted[objects]
    nearest = np.full(len(tracks), _NONE)
    order = np.lexsort((-objects, ious))[np.count_nonzero(ious <= 0) :]
    nearest[predicted[order]] = objects[order]  # the last one stays
    return NamedTracks(
        tracks=tracks,
        matches=matches,
        rules=rules,
        counted=counted,
        standing=_stand_for(objects[near], predicted[near], ious[near], len(counted)),
        nearest=nearest,
    )


def right_names(ground_truth: GroundTruth, named: NamedTracks) -> Bool[np.ndarray, "N"]:
    """Returns per object whether a track stands for it whose best name is the object's."""
    names = [track.category_id for track in named.tracks]
    pairs = zip(ground_truth.tracks, named.standing.tolist(), strict=True)
    return np.array([row != _NONE and names[row] == track.category_id for track, row in pairs], bool)


def top1(ground_truth: GroundTruth, named: NamedTracks) -> dict[str, float]:
    """Returns how often the best name of a track is right, as fractions; -1 where there is nothing to average.

    top1            of the objects that count: a track stands for it and its best name is right
    matched         of these objects: a track stands for it
    top1/matched    of the objects that a track stands for: its best name is right
    top1/colour     of the same objects: that word is right; also texture and shape; if all names have three words
    base/…, novel/… the same, of objects of base and of novel categories
    """
    right, matched = right_names(ground_truth, named), named.standing != _NONE
    partitions = {category.id: category.partition or 0 for category in ground_truth.categories}
    novel = np.array([partitions.get(track.category_id, 0) > 1 for track in ground_truth.tracks], bool)
    words = _right_words(ground_truth, named)
    numbers = {}
    for prefix, chosen in (("", named.counted), ("base/", named.counted & ~novel), ("novel/", named.counted & novel)):
        numbers[f"{prefix}top1"] = _share(right[chosen])
        numbers[f"{prefix}matched"] = _share(matched[chosen])
        numbers[f"{prefix}top1/matched"] = _share(right[chosen & matched])
        numbers |= {f"{prefix}top1/{name}": _share(same[chosen & matched]) for name, same in words.items()}
    return numbers


def _distinct(predictions: Iterable[PredictedTrack]) -> list[PredictedTrack]:
    """Returns each track once, under the first of its best names."""
    best: dict[tuple[int, Sequence[Mask | None]], PredictedTrack] = {}
    for track in predictions:
        known = best.setdefault((track.video_id, track.masks), track)
        if track.score > known.score:
            best[track.video_id, track.masks] = track
    return list(best.values())


def _stand_for(
    objects: Int64[np.ndarray, "P"], tracks: Int64[np.ndarray, "P"], ious: Float64[np.ndarray, "P"], count: int
) -> Int64[np.ndarray, "N"]:
    """Returns a track per object, from the largest overlap down; of equal ones first objects and tracks first."""
    tracks_of, taken = np.full(count, _NONE), set()
    for pair in np.lexsort((tracks, objects, -ious)).tolist():
        one, track = int(objects[pair]), int(tracks[pair])
        if tracks_of[one] == _NONE and track not in taken:
            tracks_of[one] = track
            taken.add(track)
    return tracks_of


def _right_words(ground_truth: GroundTruth, named: NamedTracks) -> dict[str, Bool[np.ndarray, "N"]]:
    """Returns per attribute and object whether the best name of its track has that word; nothing without attributes."""
    words = {category.id: category.name.replace("_", " ").split() for category in ground_truth.categories}
    if any(len(name) != len(ATTRIBUTES) for name in words.values()):
        return {}
    unknown = [""] * len(ATTRIBUTES)
    guesses = [words.get(track.category_id, unknown) for track in named.tracks]
    rows = named.standing.tolist()
    pairs = [
        (words.get(track.category_id), None if row == _NONE else guesses[row])
        for track, row in zip(ground_truth.tracks, rows, strict=True)
    ]
    return {
        name: np.array([bool(true and guess and true[i] == guess[i]) for true, guess in pairs], bool)
        for i, name in enumerate(ATTRIBUTES)
    }


def _share(values: Bool[np.ndarray, "n"]) -> float:
    return float(values.mean()) if values.size else EMPTY_MEAN
