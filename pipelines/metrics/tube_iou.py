"""Overlap of tracks: intersection over union of two tubes of masks. Masks stay run lengths."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from pipelines.datasets import run_lengths
from pipelines.datasets.annotations import Mask

_OVERLAPS = 1 << 18  # intersections held at a time, about 100 bytes each; at least those of a pair of tracks


class Tubes:
    """Masks of n tracks as run lengths, with their areas; tracks may differ in length.

    Args:
        tracks: per track its masks, one per frame, None where it is absent.

    Attributes:
        area: pixels of each track, the sum over its frames.
        mean_area: pixels, the mean over those frames of each track that have any; 0 if none has.

    Raises:
        ValueError: a mask is corrupt.
    """

    area: Int64[np.ndarray, "n"]
    mean_area: Float64[np.ndarray, "n"]

    def __init__(self, tracks: Sequence[Sequence[Mask | None]]) -> None:
        self.masks = run_lengths.read([mask for track in tracks for mask in track])
        self.lengths = np.array([len(track) for track in tracks], np.int64)
        self.area = self.sum(self.masks.areas)
        self.mean_area = self.area / np.maximum(self.seen(), 1)

    def __len__(self) -> int:
        return len(self.lengths)

    def sum(self, values: Int64[np.ndarray, "masks"]) -> Int64[np.ndarray, "n"]:
        """Returns the sums over the masks of each track."""
        total = np.append(0, values.cumsum())
        stops = self.lengths.cumsum()
        sums: Int64[np.ndarray, n] = total[stops] - total[stops - self.lengths]
        return sums

    def seen(self) -> Int64[np.ndarray, "n"]:
        """Returns in how many frames each track has pixels."""
        return self.sum((self.masks.areas > 0).astype(np.int64))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Frames:
    """Frames that both tracks of a pair have, pair by pair.

    Attributes:
        pair: position of the pair.
        prediction: position of the mask among all of the predictions.
        overlap: pixels in common.
        union: pixels of either; 0 where the masks differ in size, unless one is absent.
    """

    pair: Int64[np.ndarray, "F"]
    prediction: Int64[np.ndarray, "F"]
    overlap: Int64[np.ndarray, "F"]
    union: Int64[np.ndarray, "F"]


def tube_iou(
    ground_truths: Tubes, predictions: Tubes, pairs: Int64[np.ndarray, "P 2"], *, least: float = 0
) -> Float64[np.ndarray, "P"]:
    """Returns the IoU of pairs of tracks: sum of intersections / sum of unions, over frames paired by position.

    As YTVOSeval has it: surplus frames of the longer track are cut; a frame whose two masks differ in size adds nothing
    to either sum; a union of 0 gives an IoU of 0. Both sums are exact.

    Args:
        ground_truths: tracks.
        predictions: tracks.
        pairs: a row of `ground_truths` and a row of `predictions` each.
        least: the smallest IoU that matters; pairs whose areas alone rule it out get 0.
    """
    overlap, union = np.zeros(len(pairs)), np.zeros(len(pairs))  # whole numbers, which floats hold up to 2 ** 53
    for frames in _frames(ground_truths, predictions, pairs, least):
        overlap += np.bincount(frames.pair, frames.overlap, minlength=len(pairs))
        union += np.bincount(frames.pair, frames.union, minlength=len(pairs))
    return np.divide(overlap, union, out=np.zeros(len(pairs)), where=union > 0)


def followed_share(
    ground_truths: Tubes, predictions: Tubes, pairs: Int64[np.ndarray, "P 2"]
) -> Float64[np.ndarray, "m"]:
    """Returns the share of each prediction's frames with pixels in which it follows an object; 0 without such frames.

    A prediction follows an object in a frame where its mask has an IoU of 0.5 or more with that of any ground truth
    it is paired with.

    Args:
        ground_truths: tracks.
        predictions: m tracks.
        pairs: a row of `ground_truths` and a row of `predictions` each.
    """
    followed = np.zeros(len(predictions.masks), np.int64)
    for frames in _frames(ground_truths, predictions, pairs):
        half = (frames.overlap > 0) & (2 * frames.overlap >= frames.union)
        followed[frames.prediction[half]] = 1
    return np.asarray(predictions.sum(followed) / np.maximum(predictions.seen(), 1))


def _frames(
    ground_truths: Tubes, predictions: Tubes, pairs: Int64[np.ndarray, "P 2"], least: float = 0
) -> Iterator[_Frames]:
    """Yields the frames of pairs whose IoU may reach `least`, some pairs at a time."""
    g, p = pairs.T
    counts = np.minimum(ground_truths.lengths[g], predictions.lengths[p])
    starts_g = (ground_truths.lengths.cumsum() - ground_truths.lengths)[g]
    starts_p = (predictions.lengths.cumsum() - predictions.lengths)[p]
    full = np.flatnonzero(np.diff((counts.cumsum() - 1) // _OVERLAPS)) + 1
    for block in np.split(np.arange(len(pairs)), full):
        lengths = counts[block]
        t = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
        rows, columns = np.repeat(starts_g[block], lengths) + t, np.repeat(starts_p[block], lengths) + t
        pair = np.repeat(block, lengths)
        areas_g, areas_p = ground_truths.masks.areas[rows], predictions.masks.areas[columns]
        sizes_g, sizes_p = ground_truths.masks.sizes[rows], predictions.masks.sizes[columns]
        comparable = (sizes_g == sizes_p).all(1) | (sizes_g[:, 0] == 0) | (sizes_p[:, 0] == 0)
        if least > 0:
            inside = np.bincount(pair, np.where(comparable, np.minimum(areas_g, areas_p), 0), minlength=len(pairs))
            outside = np.bincount(pair, np.where(comparable, np.maximum(areas_g, areas_p), 0), minlength=len(pairs))
            able = (inside >= least * outside)[pair]
            pair, rows, columns, comparable = pair[able], rows[able], columns[able], comparable[able]
            areas_g, areas_p = areas_g[able], areas_p[able]
        overlap = run_lengths.intersections(ground_truths.masks, predictions.masks, rows, columns)
        union = np.where(comparable, areas_g + areas_p - overlap, 0)
        yield _Frames(pair=pair, prediction=columns, overlap=overlap, union=union)
