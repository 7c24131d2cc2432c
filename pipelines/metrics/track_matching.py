"""Which predicted track is which object: YTVOSeval's matching, for all IoU thresholds and object sizes at once.

`match_tracks` is the first step of average precision (`pipelines.metrics.video_ap`) and of the analysis of errors,
which also needs the overlaps.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pipelines.datasets.annotations import AnnotatedTrack, GroundTruth, Mask, PredictedTrack
from pipelines.metrics.rules import ApRules
from pipelines.metrics.tube_iou import Tubes, compare

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of the IoU; these floats, not k / 20: the ninth is below 0.9
AREAS = {"all": (0, 1e10), "s": (0, 128**2), "m": (128**2, 256**2), "l": (256**2, 1e10)}  # pixels, ends inside

_CHUNK_MASKS = 10_000  # masks per chunk, unless one video has more: about 30 MB


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """Matches of some videos. A group is a video and category, or a video if categories do not count.

    Attributes:
        ground_truths: positions among the ground truth's tracks; by video id, group, order in the file.
        ground_truth_categories: position of each one's category among the sorted category ids, 0 if they are one.
        ground_truth_ignored: per area range, whether it does not count.
        predictions: positions among the predictions, of those within the limit; by video id, group, score.
        prediction_categories: as `ground_truth_categories`.
        scores: of the predictions.
        ranks: of the predictions in their group, from 0.
        out_of_range: per area range, whether a prediction's mean area is outside of it.
        matched: per area range and IoU threshold the row of `ground_truths` that a prediction matched, or -1.
        pairs: a row of `ground_truths` and one of `predictions` each.
        ious: of the pairs; 0 for some that are below the first threshold, unless videos are asked for and the category
            is the same.
        followed: share of each prediction's frames with pixels in which its mask has an IoU of 0.5 or more with one of
            its group's objects that count; zeros if only groups are asked for.
    """

    ground_truths: Int64[np.ndarray, "G"]
    ground_truth_categories: Int64[np.ndarray, "G"]
    ground_truth_ignored: Bool[np.ndarray, "A G"]
    predictions: Int64[np.ndarray, "D"]
    prediction_categories: Int64[np.ndarray, "D"]
    scores: Float64[np.ndarray, "D"]
    ranks: Int64[np.ndarray, "D"]
    out_of_range: Bool[np.ndarray, "A D"]
    matched: Int64[np.ndarray, "A T D"]
    pairs: Int64[np.ndarray, "P 2"]
    ious: Float64[np.ndarray, "P"]
    followed: Float64[np.ndarray, "D"]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Side:
    """Ground truths or predictions in the order of `Matches`: positions of tracks, videos and categories."""

    tracks: Int64[np.ndarray, "n"]
    videos: Int64[np.ndarray, "n"]
    categories: Int64[np.ndarray, "n"]

    def cut(self, keep: slice | Bool[np.ndarray, "n"]) -> "_Side":
        return _Side(tracks=self.tracks[keep], videos=self.videos[keep], categories=self.categories[keep])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Chunk:
    """Videos that are matched together."""

    objects: _Side
    object_masks: list[Sequence[Mask | None]]
    mean_areas: Float64[np.ndarray, "G"]
    crowd: Bool[np.ndarray, "G"]
    predicted: _Side
    predicted_masks: list[Sequence[Mask | None]]
    scores: Float64[np.ndarray, "D"]


def match_tracks(
    ground_truth: GroundTruth,
    predictions: Sequence[PredictedTrack],
    rules: ApRules,
    *,
    pairs: Literal["group", "video"] = "group",
    threads: int = 1,
) -> Iterator[Matches]:
    """Matches predictions to objects, some videos at a time, in ascending order of video ids.

    As YTVOSeval does: in the order of scores, each prediction takes an object of its group that is still free. Objects
    that count come first, then the largest IoU, which must reach the threshold, then the later object.

    Args:
        ground_truth: the objects.
        predictions: in the order of the file, which decides between equal scores. Those of categories that the ground
            truth does not have are left out.
        rules: the benchmark's rules.
        pairs: pairs to compute the IoU of: those of a "group" are enough to match; "video" adds those of other
            categories, the IoUs of a group that are below the first threshold, and what predictions follow.
        threads: number of threads; the result does not depend on it.

    Raises:
        ValueError: a prediction's video is not in the ground truth; `threads` is below 1.
    """
    if threads < 1:
        raise ValueError(f"threads: is {threads}; give 1 or more")
    videos = np.unique(np.array([video.id for video in ground_truth.videos], np.int64))
    unknown = {track.video_id for track in predictions} - set(videos.tolist())
    if unknown:
        raise ValueError(f"predictions: video id {min(unknown)} is not in {ground_truth.path}; remove its predictions")
    chunks = _chunks(ground_truth, predictions, rules, videos)
    match = partial(_match_chunk, rules=rules, pairs_of=pairs)
    if threads == 1:
        yield from map(match, chunks)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(match, chunks)


def _chunks(
    ground_truth: GroundTruth,
    predictions: Sequence[PredictedTrack],
    rules: ApRules,
    videos: Int64[np.ndarray, "V"],
) -> Iterator[_Chunk]:
    categories = np.unique(np.array([category.id for category in ground_truth.categories], np.int64))
    objects = _order(ground_truth.tracks, videos, categories, rules)
    predicted = _order(predictions, videos, categories, rules)
    predicted = predicted.cut(_ranks(predicted) < rules.max_detections[-1])
    masks = np.zeros(len(videos), np.int64)
    for side, tracks in ((objects, ground_truth.tracks), (predicted, predictions)):
        np.add.at(masks, side.videos, [len(tracks[i].masks) for i in side.tracks])
    full = np.flatnonzero(np.diff((masks.cumsum() - 1) // _CHUNK_MASKS)) + 1
    for bounds in pairwise([0, *full.tolist(), len(videos)]):
        g, p = (side.cut(slice(*np.searchsorted(side.videos, bounds))) for side in (objects, predicted))
        annotated, predicted_tracks = [ground_truth.tracks[i] for i in g.tracks], [predictions[i] for i in p.tracks]
        yield _Chunk(
            objects=g,
            object_masks=[track.masks for track in annotated],
            mean_areas=np.array([_mean_area(track, rules, ground_truth.path) for track in annotated], np.float64),
            crowd=np.array([track.crowd for track in annotated], bool),
            predicted=p,
            predicted_masks=[track.masks for track in predicted_tracks],
            scores=np.array([track.score for track in predicted_tracks], np.float64),
        )


def _order(
    tracks: Sequence[AnnotatedTrack] | Sequence[PredictedTrack],
    videos: Int64[np.ndarray, "V"],
    categories: Int64[np.ndarray, "K"],
    rules: ApRules,
) -> _Side:
    """Sorts tracks as `Matches` says, without those of unknown videos and categories.

    Equal scores are in the order of the file, after that of category ids where categories are one group.
    """
    video_ids = np.array([track.video_id for track in tracks], np.int64)
    category_ids = np.array([track.category_id for track in tracks], np.int64)
    predicted = [track for track in tracks if isinstance(track, PredictedTrack)]
    scores = np.array([track.score for track in predicted] if predicted else np.zeros(len(tracks)), np.float64)
    if predicted and rules.forced_category is not None:
        category_ids[:] = rules.forced_category
    known = np.flatnonzero(np.isin(video_ids, videos) & np.isin(category_ids, categories))
    video, category = np.searchsorted(videos, video_ids[known]), np.searchsorted(categories, category_ids[known])
    group = category if rules.categories else np.zeros_like(category)
    order = np.lexsort((known, category, -scores[known], group, video))
    return _Side(tracks=known[order], videos=video[order], categories=group[order])


def _ranks(side: _Side) -> Int64[np.ndarray, "n"]:
    """Returns positions within groups."""
    first = np.diff(side.videos, prepend=-1) + np.abs(np.diff(side.categories, prepend=-1)) > 0
    position = np.arange(len(first))
    return position - np.maximum.accumulate(np.where(first, position, 0))


def _mean_area(track: AnnotatedTrack, rules: ApRules, path: str) -> float:
    """Returns the mean of what the file states, without null and 0; masks are not read."""
    stated = [area for area in track.areas if area]
    if rules.areas == "whole pixels":
        if not all(map(math.isfinite, stated)):
            raise ValueError(f"{path}: annotation {track.id} has areas that are not finite, at which LVVISeval stops")
        stated = [int(area) for area in stated]
    return float(np.mean(stated)) if stated else 0.0


def _match_chunk(chunk: _Chunk, rules: ApRules, pairs_of: Literal["group", "video"]) -> Matches:
    g, p = chunk.objects, chunk.predicted
    # Models give a track several labels: its masks are read once.
    distinct = {id(masks): masks for masks in chunk.predicted_masks}
    place = {key: number for number, key in enumerate(distinct)}
    tube = np.array([place[id(masks)] for masks in chunk.predicted_masks], np.int64)
    tubes = Tubes(list(distinct.values()))
    ignored = _outside(chunk.mean_areas) | (chunk.crowd & (rules.crowd == "ignored"))
    pairs = _pairs(g, p, pairs_of)
    ious, followed = _compare(Tubes(chunk.object_masks), tubes, chunk, tube, pairs, ignored[0], pairs_of)
    same = g.categories[pairs[:, 0]] == p.categories[pairs[:, 1]]
    near = np.flatnonzero(same & (ious >= THRESHOLDS[0]))
    return Matches(
        ground_truths=g.tracks,
        ground_truth_categories=g.categories,
        ground_truth_ignored=ignored,
        predictions=p.tracks,
        prediction_categories=p.categories,
        scores=chunk.scores,
        ranks=_ranks(p),
        out_of_range=_outside(tubes.mean_area[tube]),
        matched=_match(pairs[near], ious[near], ignored, chunk.crowd, p),
        pairs=pairs,
        ious=ious,
        followed=followed,
    )


def _compare(
    objects: Tubes,
    tubes: Tubes,
    chunk: _Chunk,
    tube: Int64[np.ndarray, "D"],
    pairs: Int64[np.ndarray, "P 2"],
    ignored: Bool[np.ndarray, "G"],
    pairs_of: Literal["group", "video"],
) -> tuple[Float64[np.ndarray, "P"], Float64[np.ndarray, "D"]]:
    """Returns `Matches.ious` and `Matches.followed`; each tube is compared once with an object."""
    keys, back = np.unique(pairs[:, 0] * len(tubes) + tube[pairs[:, 1]], return_inverse=True)
    keys = np.stack(np.divmod(keys, max(1, len(tubes))), 1)
    if pairs_of == "group":
        return compare(objects, tubes, keys, least=THRESHOLDS[0]).iou[back], np.zeros(len(tube))
    # A follower is a tube under one category.
    axis = 1 + max(chunk.objects.categories.max(initial=0), chunk.predicted.categories.max(initial=0))
    followers, own = np.unique(tube * axis + chunk.predicted.categories, return_inverse=True)
    wanted = keys[:, 1] * axis + chunk.objects.categories[keys[:, 0]]
    place = np.minimum(np.searchsorted(followers, wanted), len(followers) - 1)
    same = followers[place] == wanted
    follower = np.where(same & ~ignored[keys[:, 0]], place, -1)
    least = np.where(same, 0, THRESHOLDS[0])
    compared = compare(objects, tubes, keys, least=least, followers=followers // axis, follower=follower)
    return compared.iou[back], compared.followed[own]


def _outside(mean_areas: Float64[np.ndarray, "n"]) -> Bool[np.ndarray, "A n"]:
    low, high = np.array(list(AREAS.values())).T[:, :, None]
    outside: Bool[np.ndarray, "A n"] = (mean_areas < low) | (mean_areas > high)
    return outside


def _pairs(g: _Side, p: _Side, pairs_of: Literal["group", "video"]) -> Int64[np.ndarray, "P 2"]:
    """Returns all pairs of ground truths and predictions with something in common, sorted by prediction."""
    keys_g, keys_p = g.videos, p.videos
    if pairs_of == "group":
        axis = 1 + max(g.categories.max(initial=0), p.categories.max(initial=0))
        keys_g, keys_p = keys_g * axis + g.categories, keys_p * axis + p.categories
    first = np.searchsorted(keys_g, keys_p)
    counts = np.searchsorted(keys_g, keys_p, side="right") - first
    within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    return np.stack([np.repeat(first, counts) + within, np.repeat(np.arange(len(keys_p)), counts)], 1)


def _match(
    pairs: Int64[np.ndarray, "P 2"],
    ious: Float64[np.ndarray, "P"],
    ignored: Bool[np.ndarray, "A G"],
    crowd: Bool[np.ndarray, "G"],
    predicted: _Side,
) -> Int64[np.ndarray, "A T D"]:
    """Returns the ground truth that each prediction takes, from pairs of the same group, sorted by prediction.

    In turn n the n-th prediction of every group chooses: groups do not share ground truths.
    """
    matched = np.full((len(AREAS), len(THRESHOLDS), len(predicted.tracks)), -1, np.int64)
    taken = np.zeros((len(AREAS), len(THRESHOLDS), len(crowd)), bool)
    candidates = np.isin(np.arange(len(predicted.tracks)), pairs[:, 1])
    turns = _ranks(predicted.cut(candidates))[np.cumsum(candidates)[pairs[:, 1]] - 1]
    # Ground truths that count come before those that are ignored, then IoU decides, then the later one is taken.
    order = np.stack([np.lexsort((pairs[:, 0], ious, ~row[pairs[:, 0]])) for row in ignored])
    preference = np.argsort(order, axis=1)
    for turn in range(turns.max(initial=-1) + 1):
        now = np.flatnonzero(turns == turn)
        g, p = pairs[now].T
        free = (ious[now] >= THRESHOLDS[:, None]) & (~taken[:, :, g] | crowd[g])
        first = np.flatnonzero(np.diff(p, prepend=-1))
        best = np.maximum.reduceat(np.where(free, preference[:, None, now], -1), first, axis=2)
        a, t, i = np.nonzero(best >= 0)
        pair = order[a, best[a, t, i]]
        matched[a, t, p[first[i]]] = pairs[pair, 0]
        taken[a, t, pairs[pair, 0]] = True
    return matched
