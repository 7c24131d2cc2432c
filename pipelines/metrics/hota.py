"""HOTA and its parts (Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", IJCV 2021).

TrackEval's procedure, for any similarity of objects in a frame: of boxes (`box_iou`), masks (`mask_iou`), or others.
What a sequence adds is kept in sums, so that sequences and classes can be pooled in any order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float64, Int64
from scipy.optimize import linear_sum_assignment

from pipelines.datasets.run_lengths import RunLengths, intersections

ALPHAS = np.arange(0.05, 0.99, 0.05)  # localisation thresholds: 0.05, 0.1, ..., 0.95
EPSILON = np.finfo(np.float64).eps


@dataclass(frozen=True, kw_only=True, eq=False)
class FramePair:
    """The objects and predictions of a frame.

    Attributes:
        gt_ids: ids of the objects' tracks, each once.
        prediction_ids: ids of the predictions' tracks, each once.
        similarity: similarity of each object to each prediction, 0 to 1.
    """

    gt_ids: Int64[np.ndarray, "G"]
    prediction_ids: Int64[np.ndarray, "P"]
    similarity: Float64[np.ndarray, "G P"]


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


def box_iou(gt: Float64[np.ndarray, "G 4"], predictions: Float64[np.ndarray, "P 4"]) -> Float64[np.ndarray, "G P"]:
    """Intersection over union of (x, y, width, height) boxes; 0 where both are empty."""
    a, b = gt[:, None], predictions[None]
    sides = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    overlap = sides.clip(min=0).prod(-1)
    union = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - overlap
    iou: Float64[np.ndarray, "G P"] = np.zeros_like(overlap)
    np.divide(overlap, union, out=iou, where=union > 0)
    return iou


def mask_iou(
    gt: RunLengths, predictions: RunLengths, rows: Int64[np.ndarray, "G"], columns: Int64[np.ndarray, "P"]
) -> Float64[np.ndarray, "G P"]:
    """Intersection over union of some masks of one frame, at `rows` of `gt` and at `columns` of `predictions`.

    0 where both are empty.
    """
    every_row, every_column = np.repeat(rows, len(columns)), np.tile(columns, len(rows))
    overlap = intersections(gt, predictions, every_row, every_column)
    union = gt.areas[every_row] + predictions.areas[every_column] - overlap
    iou = np.zeros(len(overlap))
    np.divide(overlap, union, out=iou, where=union > 0)
    return iou.reshape(len(rows), len(columns))


def hota_sums(frames: Sequence[FramePair]) -> HotaSums:
    """What the frames of a sequence add to HOTA, for one class.

    Objects and predictions are matched once per frame, by the largest sum of similarity times the alignment of their
    tracks over the sequence; a match counts at the thresholds that its similarity reaches (Sec. 5 of the paper).

    Raises:
        ValueError: an id occurs twice in a frame.
    """
    gt, gt_count = _number([frame.gt_ids for frame in frames])
    predicted, predicted_count = _number([frame.prediction_ids for frame in frames])
    potential = np.zeros((len(gt_count), len(predicted_count)))
    for frame, rows, columns in zip(frames, gt, predicted, strict=True):
        potential[np.ix_(rows, columns)] += _shares(frame.similarity)
    alignment = potential / (gt_count[:, None] + predicted_count - potential)

    pairs, similarities = [np.zeros(0, np.int64)], [np.zeros(0)]
    for frame, rows, columns in zip(frames, gt, predicted, strict=True):
        row, column = linear_sum_assignment(-(alignment[np.ix_(rows, columns)] * frame.similarity))
        pairs.append(rows[row] * len(predicted_count) + columns[column])
        similarities.append(frame.similarity[row, column])
    similarity = np.concatenate(similarities)
    reached = similarity[:, None] >= ALPHAS - EPSILON
    tp = reached.sum(0).astype(np.float64)

    pair, number = np.unique(np.concatenate(pairs), return_inverse=True)
    together = np.zeros((len(pair), len(ALPHAS)))
    np.add.at(together, number, reached)
    gt_track, predicted_track = np.divmod(pair, max(1, len(predicted_count)))
    its_gt, its_predictions = gt_count[gt_track, None], predicted_count[predicted_track, None]
    return HotaSums(
        tp=tp,
        fn=gt_count.sum() - tp,
        fp=predicted_count.sum() - tp,
        similarity=(similarity[:, None] * reached).sum(0),
        association=(together**2 / (its_gt + its_predictions - together)).sum(0),
        association_recall=(together**2 / its_gt).sum(0),
        association_precision=(together**2 / its_predictions).sum(0),
    )


def _number(frames: Sequence[Int64[np.ndarray, "_"]]) -> tuple[list[Int64[np.ndarray, "_"]], Int64[np.ndarray, "n"]]:
    """Numbers the n tracks from 0; returns the numbers in each frame and in how many frames each track is."""
    sizes = [len(ids) for ids in frames]
    ids, numbers = np.unique(np.concatenate([np.zeros(0, np.int64), *frames]), return_inverse=True)
    split = np.split(numbers, np.cumsum(sizes)[:-1]) if sizes else []
    for frame, members in enumerate(split):
        if len(np.unique(members)) < len(members):
            raise ValueError(f"frame {frame}: ids {frames[frame].tolist()[:20]} occur more than once; give unique ones")
    return split, np.bincount(numbers, minlength=len(ids))


def _shares(similarity: Float64[np.ndarray, "G P"]) -> Float64[np.ndarray, "G P"]:
    """Similarity over what the object and the prediction have with all others of the frame (as an IoU)."""
    total = similarity.sum(0)[None] + similarity.sum(1)[:, None] - similarity
    shares: Float64[np.ndarray, "G P"] = np.zeros_like(similarity)
    np.divide(similarity, total, out=shares, where=total > EPSILON)
    return shares
