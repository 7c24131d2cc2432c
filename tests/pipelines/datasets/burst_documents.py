"""Files of BURST for tests: two sequences, of which the predictions have the other order."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from pipelines.datasets.burst import BurstDetections, BurstGroundTruth, BurstPredictions
from pipelines.datasets.burst_files import read_ground_truth, read_predictions

HEIGHT, WIDTH = 6, 8


def rle(pixels: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> str:
    """The first pixels of the first column and on."""
    order = np.arange(size[0] * size[1]).reshape(size[::-1]).T
    dense = order < pixels
    return str(coco.encode(np.asfortranarray(dense.astype(np.uint8)))["counts"].decode())


GROUND_TRUTH: dict[str, Any] = {
    "split": "val",
    "categories": [{"id": 347, "name": "cup", "synset": "cup.n.01"}, {"id": 13, "name": "apple"}],
    "sequences": [
        {
            "id": 3,
            "dataset": "AVA",
            "seq_name": "kitchen",
            "height": HEIGHT,
            "width": WIDTH,
            "annotated_image_paths": ["k_scene_000031.png", "k_scene_000001.png"],
            "neg_category_ids": [5],
            "not_exhaustive_category_ids": [6, 7],
            "track_category_ids": {"1": 347, "2": 13},
            "segmentations": [{"1": {"rle": rle(7), "is_gt": True}}, {"2": {"rle": rle(9)}, "1": {"rle": rle(8)}}],
        },
        {
            "id": 4,
            "dataset": "BDD",
            "seq_name": "street",
            "height": 2,
            "width": 3,
            "annotated_image_paths": ["frame0001.jpg"],
            "neg_category_ids": [],
            "not_exhaustive_category_ids": [],
            "track_category_ids": {},
            "segmentations": [{}],
        },
    ],
}
PREDICTIONS: dict[str, Any] = {
    "split": "val",
    "sequences": [
        {
            "dataset": "BDD",
            "seq_name": "street",
            "annotated_image_paths": ["frame0001.jpg"],
            "track_category_ids": {},
            "segmentations": [{}],
        },
        {
            "dataset": "AVA",
            "seq_name": "kitchen",
            "annotated_image_paths": ["k_scene_000001.png", "k_scene_000016.png", "k_scene_000031.png"],
            "track_category_ids": {"4": 347, "9": 504},
            "segmentations": [
                {"4": {"rle": rle(8), "score": 0.25}, "9": {"rle": rle(1), "score": 1}},
                {"4": {"rle": rle(8), "score": 0.5}},
                {"9": {"rle": rle(2), "score": 0.75, "category_id": 13}},
            ],
        },
    ],
}
Edit = Callable[[dict[str, Any]], object]


class Files:
    def __init__(self, folder: Path) -> None:
        self.gt, self.predictions = str(folder / "gt.json"), str(folder / "predictions.json")

    def ground_truth(self, edit: Edit = lambda _: None, *, strict: bool = True) -> BurstGroundTruth:
        return read_ground_truth(self.write(self.gt, GROUND_TRUTH, edit), strict=strict)

    def read(self, edit: Edit = lambda _: None, *, strict: bool = True) -> BurstPredictions:
        truth = self.ground_truth()
        return read_predictions(self.write(self.predictions, PREDICTIONS, edit), truth, strict=strict)

    def write(self, path: str, document: dict[str, Any], edit: Edit) -> str:
        document = copy.deepcopy(document)
        edit(document)
        Path(path).write_text(json.dumps(document))
        return path


def set_item(key: str, value: Any, *path: Any) -> Edit:
    """Sets an item of the document, or of what is below it; None removes it."""

    def edit(document: dict[str, Any]) -> None:
        item: Any = document["sequences"][path[0]] if path else document
        if len(path) > 1:
            item = item["segmentations"][path[1]][path[2]]
        item.pop(key) if value is None else item.update({key: value})

    return edit


def rows(detections: BurstDetections) -> list[tuple[int, int, int, float, bytes]]:
    columns = (detections.frame, detections.track_id, detections.category_id, detections.score)
    return list(zip(*(column.tolist() for column in columns), [mask.counts for mask in detections.masks], strict=True))
