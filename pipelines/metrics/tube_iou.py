"""Overlap of tracks: intersection over union of two tubes of masks.

Masks stay run lengths. Areas and intersections are pycocotools' C code, called for all masks of a group of tracks and
frame at once: decoding the run lengths alone took longer in numpy than this takes altogether.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from pycocotools import mask as coco
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipelines.datasets.annotations import Mask

_AREA_MASKS = 255  # at a time: pycocotools 2.0.11 puts their number into a byte, and numpy 2 refuses larger ones
_OVERLAPS = 1 << 18  # intersections held at a time, about 50 bytes each; at least those of a group's frame

_Rle = dict[str, Any]  # as pycocotools takes it

_ABSENT, _BEYOND = 0, -1  # sizes of frames without a mask, and of those after the track's end


class Tubes:
    """Masks of n tracks as run lengths, with their areas; tracks may differ in length.

    Args:
        tracks: per track its masks, one per frame, None where it is absent.

    Attributes:
        area: pixels of each track, the sum over its frames.
        mean_area: pixels, the mean over those frames of each track that have any; 0 if none has.
    """

    area: Int64[np.ndarray, "n"]
    mean_area: Float64[np.ndarray, "n"]

    def __init__(self, tracks: Sequence[Sequence[Mask | None]]) -> None:
        shape = len(tracks), max(map(len, tracks), default=0)
        self._rles: list[list[_Rle | None]] = [
            [None if mask is None else {"size": mask[:2], "counts": mask.counts} for mask in track] for track in tracks
        ]
        self._sizes = np.full(shape, _BEYOND, np.int64)
        self._areas = np.zeros(shape, np.int64)
        for row, track in enumerate(self._rles):
            self._sizes[row, : len(track)] = [
                _ABSENT if rle is None else rle["size"][0] << 32 | rle["size"][1] for rle in track
            ]
        rles = [rle for track in self._rles for rle in track if rle is not None]
        areas = [coco.area(rles[i : i + _AREA_MASKS]) for i in range(0, len(rles), _AREA_MASKS)]
        self._areas[self._sizes > _ABSENT] = np.concatenate(areas) if areas else 0
        self.area = self._areas.sum(1)
        self.mean_area = self.area / np.maximum((self._areas > 0).sum(1), 1)

    def __len__(self) -> int:
        return len(self._rles)


def tube_iou(ground_truths: Tubes, predictions: Tubes, pairs: Int64[np.ndarray, "P 2"]) -> Float64[np.ndarray, "P"]:
    """Returns the IoU of pairs of tracks: sum of intersections / sum of unions, over frames paired by position.

    As YTVOSeval has it: surplus frames of the longer track are cut; a frame whose two masks differ in size adds nothing
    to either sum; a union of 0 gives an IoU of 0. Both sums are exact.

    Args:
        ground_truths: tracks.
        predictions: tracks.
        pairs: a row of `ground_truths` and a row of `predictions` each.
    """
    overlap, union = np.zeros(len(pairs), np.int64), np.zeros(len(pairs), np.int64)
    frames = min(ground_truths._sizes.shape[1], predictions._sizes.shape[1])
    for group in _groups(pairs, len(ground_truths), len(predictions)):
        (g, row_g), (p, row_p) = (np.unique(pairs[group, side], return_inverse=True) for side in (0, 1))
        step = max(1, _OVERLAPS // (len(g) * len(p)))
        for start in range(0, frames, step):
            t = np.arange(start, min(start + step, frames))
            sizes_g, sizes_p = ground_truths._sizes[g][:, t][None], predictions._sizes[p][:, t][:, None]
            areas_g, areas_p = ground_truths._areas[g][:, t][None], predictions._areas[p][:, t][:, None]
            # Beyond a track's end nothing counts: the other one's mask, if any, has another size.
            counted = (sizes_g == sizes_p) | (sizes_g == _ABSENT) | (sizes_p == _ABSENT)
            # A share of a prediction's area times the area: off by far less than half a pixel.
            shared = np.rint(_shares(ground_truths, predictions, g, p, t) * areas_p).astype(np.int64)
            overlaps = np.where(counted, shared, 0).sum(2)
            unions = np.where(counted, areas_g + areas_p, 0).sum(2) - overlaps
            overlap[group] += overlaps[row_p, row_g]
            union[group] += unions[row_p, row_g]
    return np.divide(overlap, union, out=np.zeros(len(pairs)), where=union > 0)


def followed_share(
    ground_truths: Tubes, predictions: Tubes, pairs: Int64[np.ndarray, "P 2"]
) -> Float64[np.ndarray, "m"]:
    """Returns in which share of the frames where it has pixels a prediction follows an object; 0 if it has none.

    It does in a frame where its mask has an IoU of 0.5 or more with that of any ground truth it is paired with.

    Args:
        ground_truths: tracks.
        predictions: m tracks.
        pairs: a row of `ground_truths` and a row of `predictions` each.
    """
    frames = min(ground_truths._sizes.shape[1], predictions._sizes.shape[1])
    followed = np.zeros(len(predictions))
    for group in _groups(pairs, len(ground_truths), len(predictions)):
        (g, row_g), (p, row_p) = (np.unique(pairs[group, side], return_inverse=True) for side in (0, 1))
        paired = np.zeros((len(p), len(g), 1), bool)
        paired[row_p, row_g] = True
        step = max(1, _OVERLAPS // (len(g) * len(p)))
        for start in range(0, frames, step):
            t = np.arange(start, min(start + step, frames))
            areas_g, areas_p = ground_truths._areas[g][:, t][None], predictions._areas[p][:, t][:, None]
            overlaps = np.rint(_shares(ground_truths, predictions, g, p, t) * areas_p)
            half = (overlaps > 0) & (2 * overlaps >= areas_g + areas_p - overlaps)
            followed[p] += (half & paired).any(1).sum(1)
    followed /= np.maximum((predictions._areas > 0).sum(1), 1)
    return followed


def _groups(pairs: Int64[np.ndarray, "P 2"], n: int, m: int) -> Iterator[Int64[np.ndarray, "_"]]:
    """Yields the positions of pairs in groups that share no track, such as those of a video and category."""
    if len(pairs) == 0:
        return
    links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], n + pairs[:, 1])), shape=(n + m, n + m))
    label = connected_components(links, directed=False)[1][pairs[:, 0]]
    order = np.argsort(label, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(label[order])) + 1)


def _shares(
    ground_truths: Tubes,
    predictions: Tubes,
    g: Int64[np.ndarray, "G"],
    p: Int64[np.ndarray, "D"],
    frames: Int64[np.ndarray, "T"],
) -> Float64[np.ndarray, "D G T"]:
    """Returns which share of each prediction's mask each ground truth's mask covers; negative if their sizes differ."""
    shares = np.zeros((len(p), len(g), len(frames)))
    seen_g, seen_p = ground_truths._areas[g][:, frames] > 0, predictions._areas[p][:, frames] > 0
    for i in np.flatnonzero(seen_g.any(0) & seen_p.any(0)):
        here_g, here_p = np.flatnonzero(seen_g[:, i]), np.flatnonzero(seen_p[:, i])
        masks_g = [ground_truths._rles[row][frames[i]] for row in g[here_g]]
        masks_p = [predictions._rles[row][frames[i]] for row in p[here_p]]
        # pycocotools divides by the prediction's area where a ground truth is a crowd.
        shares[here_p[:, None], here_g, i] = coco.iou(masks_p, masks_g, [1] * len(masks_g))
    return shares
