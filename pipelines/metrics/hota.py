"""HOTA and its parts (Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", IJCV 2021).

TrackEval's procedure, for any similarity of objects in a frame: of boxes (`box_iou`), masks (`mask_iou`), or others.
What a sequence adds is kept in sums, so that sequences and classes can be pooled in any order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float64, Int64

from pipelines.datasets.run_lengths import RunLengths
from pipelines.datasets.shared_pixels import intersections
from pipelines.metrics.frame_matching import EPSILON, FramePairs, match

ALPHAS = np.arange(0.05, 0.99, 0.05)  # localisation thresholds: 0.05, 0.1, ..., 0.95


@dataclass(frozen=True, kw_only=True, eq=False)
class HotaSums:
    """Sums over detections, at each of the A thresholds, from which all scores follow.

    Attributes:
        tp: matched objects.
        fn: objects without a match.
        fp: predictions without a match.
        similarity: sum over matches.
        association: sum over matches c of TPA(c) / (TPA(c) + FNA(c) + FPA(c)), Eq. 7 of the paper.
        association_recall: sum over matches of TPA / (TPA + FNA).
        association_precision: sum over matches of TPA / (TPA + FPA).
    """

    tp: Float64[np.ndarray, "A"]
    fn: Float64[np.ndarray, "A"]
    fp: Float64[np.ndarray, "A"]
    similarity: Float64[np.ndarray, "A"]
    association: Float64[np.ndarray, "A"]
    association_recall: Float64[np.ndarray, "A"]
    association_precision: Float64[np.ndarray, "A"]

    @classmethod
    def pool(cls, parts: Sequence["HotaSums"]) -> "HotaSums":
        """Adds up sequences or classes; zeros if there are none."""
        zero = np.zeros(len(ALPHAS))
        return cls(**{f.name: sum((getattr(part, f.name) for part in parts), zero) for f in fields(cls)})

    def curves(self) -> dict[str, Float64[np.ndarray, "A"]]:
        """Scores at each threshold, named as in TrackEval; OWTA is from Liu et al., CVPR 2022. LocA is 1 if empty."""
        matches = np.maximum(1, self.tp)
        recall = self.tp / np.maximum(1, self.tp + self.fn)
        detection = self.tp / np.maximum(1, self.tp + self.fn + self.fp)
        association = self.association / matches
        return {
            "HOTA": np.sqrt(detection * association),
            "DetA": detection,
            "AssA": association,
            "DetRe": recall,
            "DetPr": self.tp / np.maximum(1, self.tp + self.fp),
            "AssRe": self.association_recall / matches,
            "AssPr": self.association_precision / matches,
            "LocA": np.maximum(1e-10, self.similarity) / np.maximum(1e-10, self.tp),
            "OWTA": np.sqrt(recall * association),
        }

    def summary(self) -> dict[str, float]:
        """Means over thresholds, `(0)` at the lowest one, and detections summed over thresholds (`_sum`)."""
        curves = self.curves()
        hota, location = float(curves["HOTA"][0]), float(curves["LocA"][0])
        first = {"HOTA(0)": hota, "LocA(0)": location, "HOTALocA(0)": hota * location}
        sums = {f"HOTA_{name.upper()}_sum": float(getattr(self, name).sum()) for name in ("tp", "fn", "fp")}
        return {name: float(values.mean()) for name, values in curves.items()} | first | sums


def class_average(summaries: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over classes; those in `_sum` are summed. At least one class must be given."""
    columns = {name: [summary[name] for summary in summaries] for name in summaries[0]}
    return {name: float((np.sum if name.endswith("_sum") else np.mean)(column)) for name, column in columns.items()}


def box_iou(gt: Float64[np.ndarray, "n 4"], predictions: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n"]:
    """Intersection over union of n pairs of (x, y, width, height) boxes; 0 where both are empty."""
    ends = np.minimum(gt[:, :2] + gt[:, 2:], predictions[:, :2] + predictions[:, 2:])
    overlap = (ends - np.maximum(gt[:, :2], predictions[:, :2])).clip(min=0).prod(1)
    union = gt[:, 2:].prod(1) + predictions[:, 2:].prod(1) - overlap
    return np.asarray(np.divide(overlap, union, out=np.zeros(len(gt)), where=union > 0))


def mask_iou(
    gt: RunLengths, predictions: RunLengths, rows: Int64[np.ndarray, "n"], columns: Int64[np.ndarray, "n"]
) -> Float64[np.ndarray, "n"]:
    """Intersection over union of n pairs of masks, at `rows` of `gt` and at `columns` of `predictions`.

    0 where both are empty.
    """
    overlap = intersections(gt, predictions, rows, columns)
    union = gt.areas[rows] + predictions.areas[columns] - overlap
    return np.asarray(np.divide(overlap, union, out=np.zeros(len(rows)), where=union > 0))


def hota_sums(frames: FramePairs) -> HotaSums:
    """What the frames of a sequence add to HOTA, for one class.

    Objects and predictions are matched once per frame; a match counts at the thresholds that its similarity reaches
    (Sec. 5 of the paper).

    Raises:
        ValueError: an id occurs twice in a frame.
    """
    gt, gt_length = _number(frames.gt_ids, frames.gt_counts)
    predicted, predicted_length = _number(frames.prediction_ids, frames.prediction_counts)
    gt_place, place = frames.sides
    matched = match(frames, gt, predicted)
    similarity = frames.similarity[matched]
    reached = similarity[:, None] >= ALPHAS - EPSILON
    tp = reached.sum(0).astype(np.float64)

    tracks = gt[gt_place[matched]] * len(predicted_length) + predicted[place[matched]]
    pair, number = np.unique(tracks, return_inverse=True)
    together = np.zeros((len(pair), len(ALPHAS)))
    np.add.at(together, number, reached)
    gt_track, predicted_track = np.divmod(pair, max(1, len(predicted_length)))
    objects, predictions = gt_length[gt_track, None], predicted_length[predicted_track, None]
    return HotaSums(
        tp=tp,
        fn=len(gt) - tp,
        fp=len(predicted) - tp,
        similarity=(similarity[:, None] * reached).sum(0),
        association=(together**2 / (objects + predictions - together)).sum(0),
        association_recall=(together**2 / objects).sum(0),
        association_precision=(together**2 / predictions).sum(0),
    )


def _number(
    ids: Int64[np.ndarray, "n"], counts: Int64[np.ndarray, " F"]
) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "m"]]:
    """Numbers the m tracks from 0; returns the numbers, and in how many frames each track is."""
    known, numbers = np.unique(ids, return_inverse=True)
    frames = np.repeat(np.arange(len(counts)), counts)
    keys, times = np.unique(frames * len(known) + numbers, return_counts=True)
    if len(keys) < len(ids):
        frame = keys[times > 1][0] // len(known)
        own = ids[frames == frame].tolist()[:20]
        raise ValueError(f"frame {frame}: ids {own} occur more than once; give unique ones")
    return numbers, np.bincount(numbers, minlength=len(known))
