"""Overlap of tracks: intersection over union of two tubes of masks. Masks stay run lengths."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from pipelines.datasets import mask_table
from pipelines.datasets.annotations import Mask
from pipelines.datasets.shared_pixels import compare_tubes


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
        self.masks = mask_table.read(tracks)
        self.lengths = np.array([len(track) for track in tracks], np.int64)
        self.firsts = self.lengths.cumsum() - self.lengths
        self.area = self.sum(self.masks.areas)
        self.mean_area = self.area / np.maximum(self.seen(), 1)

    def __len__(self) -> int:
        return len(self.lengths)

    def sum(self, values: Int64[np.ndarray, " masks"]) -> Int64[np.ndarray, "n"]:
        """Returns the sums over the masks of each track."""
        total = np.append(0, values.cumsum())
        sums: Int64[np.ndarray, n] = total[self.firsts + self.lengths] - total[self.firsts]
        return sums

    def seen(self) -> Int64[np.ndarray, "n"]:
        """Returns in how many frames each track has pixels."""
        return self.sum((self.masks.areas > 0).astype(np.int64))


class Comparison(NamedTuple):
    """What pairs of tracks have in common.

    Attributes:
        iou: intersection over union of each pair.
        followed: for each follower, the share of its frames with pixels in which it follows an object; 0 without such.
    """

    iou: Float64[np.ndarray, "P"]
    followed: Float64[np.ndarray, "m"]


def compare(
    ground_truths: Tubes,
    predictions: Tubes,
    pairs: Int64[np.ndarray, "P 2"],
    *,
    least: float | Float64[np.ndarray, "P"] = 0,
    followers: Int64[np.ndarray, "m"] | None = None,
    follower: Int64[np.ndarray, "P"] | None = None,
) -> Comparison:
    """Compares pairs of tracks, frames paired by position.

    The IoU is the sum of intersections / the sum of unions. As YTVOSeval has it: surplus frames of the longer track are
    cut; a frame whose two masks differ in size adds nothing to either sum; a union of 0 gives an IoU of 0. Both sums
    are exact.

    A follower is a prediction that is compared with some of the objects, such as those of its category. It follows an
    object in a frame where its mask has an IoU of 0.5 or more with that of any of them.

    Args:
        ground_truths: tracks.
        predictions: tracks.
        pairs: a row of `ground_truths` and a row of `predictions` each.
        least: the smallest IoU that matters; pairs that cannot reach it get 0. It is 0 for pairs with a follower.
        followers: a row of `predictions` each.
        follower: for each pair a position in `followers`, or -1.
    """
    followers = np.zeros(0, np.int64) if followers is None else followers
    lengths = predictions.lengths[followers]
    firsts = lengths.cumsum() - lengths
    marks = np.full(len(pairs), -1) if follower is None else np.where(follower < 0, -1, np.append(firsts, 0)[follower])
    marked = np.zeros(lengths.sum(), bool)
    g, p = pairs.T
    frames = np.stack(
        [ground_truths.firsts[g], predictions.firsts[p], np.minimum(ground_truths.lengths[g], predictions.lengths[p])],
        1,
    )
    least = np.broadcast_to(np.asarray(least, np.float64), len(pairs))
    sums = compare_tubes(ground_truths.masks, predictions.masks, frames, least, marks, marked)
    common, either = sums.T
    total = np.append(0, marked.cumsum())
    return Comparison(
        iou=np.divide(common, either, out=np.zeros(len(pairs)), where=either > 0),
        followed=(total[firsts + lengths] - total[firsts]) / np.maximum(predictions.seen()[followers], 1),
    )
