"""Picks the objects and predictions that BURST's protocol evaluates, their categories, and their tracks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.datasets.annotations import Mask
from pipelines.datasets.burst import CATEGORY_COUNT, MERGED, NOT_EVALUATED, BurstDetections, BurstSequence
from pipelines.datasets.mask_table import place, select

MAX_DETECTIONS = 300  # per frame, of all categories


@dataclass(frozen=True, kw_only=True, eq=False)
class BurstTrack:
    """A track of a sequence.

    Attributes:
        id: as in the file.
        category: that of its first mask.
        score: mean over its masks.
        masks: one per annotated frame, None where it is absent.
    """

    id: int
    category: int
    score: float
    masks: Sequence[Mask | None]


def ranking_order(sequences: Sequence[BurstSequence]) -> list[int]:
    """Returns the positions of sequences in the order of their names, which decides between equal scores."""
    return sorted(range(len(sequences)), key=lambda number: sequences[number].name.replace("/", "-"))


def evaluated(sequence: BurstSequence) -> BurstSequence:
    """Drops the objects that are not evaluated. Objects that are merged into those later stay, but have no score."""
    kept = ~np.isin(sequence.objects.category_id, list(NOT_EVALUATED))
    return replace(sequence, objects=merged(sequence.objects.select(kept)))


def evaluated_categories(sequences: Sequence[BurstSequence]) -> frozenset[int]:
    """Returns the categories that have a score: those of the objects that `evaluated` leaves."""
    annotated = {category for sequence in sequences for category in sequence.objects.category_id.tolist()}
    return frozenset(category for category in annotated - NOT_EVALUATED if 1 <= category <= CATEGORY_COUNT)


def known_categories(sequence: BurstSequence, categories: frozenset[int]) -> frozenset[int]:
    """Returns the categories that are in a sequence or known to be absent; predictions of others cost nothing."""
    return categories & {*sequence.objects.category_id.tolist(), *sequence.negative}


def merged(detections: BurstDetections) -> BurstDetections:
    """Replaces categories by those that they are counted as."""
    categories = detections.category_id.copy()
    for category, counted_as in MERGED.items():
        categories[detections.category_id == category] = counted_as
    return replace(detections, category_id=categories)


def limited(detections: BurstDetections) -> BurstDetections:
    """Keeps the best detections of each frame, in order of score if some are left out."""
    if np.bincount(detections.frame, minlength=1).max() <= MAX_DETECTIONS:
        return detections
    kept: list[int] = []
    for frame in dict.fromkeys(detections.frame.tolist()):
        rows = np.flatnonzero(detections.frame == frame).tolist()
        if len(rows) > MAX_DETECTIONS:
            rows = sorted(rows, key=lambda row: detections.score[row], reverse=True)[:MAX_DETECTIONS]
        kept += rows
    return detections.select(np.array(kept, np.int64))


def with_own_ids(sequences: Sequence[BurstDetections], strict: bool) -> list[BurstDetections]:
    """Keeps track id 0 only where the evaluator does: it renumbers ids that several sequences use."""
    zero = [bool((rows.track_id == 0).any()) for rows in sequences]
    if sum(zero) == 1 and not strict:
        return list(sequences)
    return [
        replace(rows, track_id=np.where(rows.track_id == 0, rows.track_id.max() + 1, rows.track_id)) if has else rows
        for rows, has in zip(sequences, zero, strict=True)
    ]


def tracks(sequence: BurstSequence, detections: BurstDetections, categories: frozenset[int]) -> list[BurstTrack]:
    """Returns the tracks of some categories, in the order of their first masks.

    Args:
        sequence: the sequence that the masks are of.
        detections: the masks: the sequence's objects, or predictions.
        categories: the categories to keep.
    """
    ids, first, track = np.unique(detections.track_id, return_index=True, return_inverse=True)
    # In the order of time within tracks, on which the mean depends.
    order = np.lexsort((sequence.times[detections.frame], track))
    bounds = np.searchsorted(track[order], np.arange(len(ids) + 1))
    built = []
    for number in np.argsort(first):
        category = int(detections.category_id[first[number]])
        if category not in categories:
            continue
        rows = order[bounds[number] : bounds[number + 1]]
        masks = place(select(detections.masks, rows), detections.frame[rows], len(sequence.image_paths))
        score = float(np.mean(detections.score[rows]))
        built.append(BurstTrack(id=int(ids[number]), category=category, score=score, masks=masks))
    return built
