"""Small BURST files for tests: sequences of 40 x 100 pixels."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from pipelines.datasets.annotations import Mask
from pipelines.datasets.burst import BurstDetections, BurstGroundTruth, BurstPredictions, BurstSequence
from pipelines.datasets.burst_files import read_ground_truth, read_predictions

HEIGHT, WIDTH = 40, 100
CUP, HAT = 347, 554  # cups are common, hats are not


def box(x: int, width: int, y: int = 0, height: int = 20) -> np.ndarray:
    dense = np.zeros((HEIGHT, WIDTH), np.uint8)
    dense[y : y + height, x : x + width] = 1
    return dense


FIRST, SECOND, FAR = box(0, 20), box(30, 20), box(60, 20)


@dataclass
class Track:
    """An object or a prediction: a mask per frame, and what else its frames have."""

    category: int
    masks: Sequence[np.ndarray | None]
    score: float | None = 0.5
    id: int | None = None
    categories: Sequence[int] = ()


def sequence(name: str, tracks: Sequence[Track], frames: int = 2, **lists: list[int]) -> dict[str, Any]:
    segmentations: list[dict[str, Any]] = [{} for _ in range(frames)]
    ids = [str(number if track.id is None else track.id) for number, track in enumerate(tracks, start=1)]
    for id_, track in zip(ids, tracks, strict=True):
        for frame, mask in enumerate(track.masks):
            if mask is not None:
                entry = {"rle": coco.encode(np.asfortranarray(mask))["counts"].decode()}
                entry |= {} if track.score is None else {"score": track.score}
                entry |= {"category_id": track.categories[frame]} if track.categories else {}
                segmentations[frame][id_] = entry
    return {
        "dataset": "AVA",
        "seq_name": name,
        "height": HEIGHT,
        "width": WIDTH,
        "annotated_image_paths": [f"frame{frame:04}.jpg" for frame in range(frames)],
        "neg_category_ids": lists.get("negative", []),
        "not_exhaustive_category_ids": lists.get("not_exhaustive", []),
        "track_category_ids": {id_: track.category for id_, track in zip(ids, tracks, strict=True)},
        "segmentations": segmentations,
    }


class Files:
    """Writes a ground truth and predictions, and reads them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, annotated: Sequence[dict[str, Any]], predicted: Sequence[dict[str, Any]]
    ) -> tuple[BurstGroundTruth, BurstPredictions]:
        for name, sequences in (("gt", annotated), ("predictions", predicted)):
            (self.folder / f"{name}.json").write_text(
                json.dumps({"split": "val", "sequences": sequences, "categories": []})
            )
        ground_truth = read_ground_truth(str(self.folder / "gt.json"), strict=False)
        return ground_truth, read_predictions(str(self.folder / "predictions.json"), ground_truth, strict=False)


def one(objects: Sequence[Track], predictions: Sequence[Track], **lists: Any) -> tuple[list[Any], list[Any]]:
    """One sequence."""
    return [sequence("a", objects, **lists)], [sequence("a", predictions, frames=lists.get("frames", 2))]


Row = tuple[int, int, int, float, Mask]  # frame, track, category, score, mask


def detections(rows: Sequence[Row]) -> BurstDetections:
    return BurstDetections(
        frame=np.array([row[0] for row in rows], np.int64),
        track_id=np.array([row[1] for row in rows], np.int64),
        category_id=np.array([row[2] for row in rows], np.int64),
        score=np.array([row[3] for row in rows], np.float64),
        masks=tuple(row[4] for row in rows),
    )


def burst_sequence(objects: Sequence[Row], name: str = "val/AVA/a", **lists: set[int]) -> BurstSequence:
    """Two frames of 1 x 400 pixels."""
    return BurstSequence(
        name=name,
        height=1,
        width=400,
        image_paths=("1.jpg", "2.jpg"),
        times=np.array([1, 2]),
        negative=frozenset(lists.get("negative", ())),
        not_exhaustive=frozenset(lists.get("not_exhaustive", ())),
        objects=detections(objects),
    )
