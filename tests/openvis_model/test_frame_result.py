import builtins
import pickle
from typing import Any

import numpy as np
import pytest
import supervision
import torch

from openvis_model.frame_result import FrameResult
from openvis_model.rle import RleMasks, encode

MASKS = torch.zeros(2, 6, 8, dtype=torch.bool)
MASKS[0, 1:3, 4:7] = True
MASKS[1, 0:6, 0] = True


def result(masks: RleMasks, *ids: int) -> FrameResult:
    n = len(ids)
    return FrameResult(
        index=3,
        track_ids=np.array(ids, dtype=np.int64),
        categories=("star", "disc")[:n],
        category_ids=np.array([4, 1][:n], dtype=np.int64),
        scores=np.array([0.75, 0.5][:n], dtype=np.float32),
        objectness=np.array([0.9, 0.8][:n], dtype=np.float32),
        masks=masks,
    )


def test_boxes_and_masks() -> None:
    frame = result(encode(MASKS), 0, 5)
    assert len(frame) == 2
    assert frame.boxes.tolist() == [[4, 1, 3, 2], [0, 0, 1, 6]]
    assert np.array_equal(frame.masks.to_dense(), MASKS.numpy())
    assert frame.masks.to_coco()[1]["size"] == [6, 8]
    assert len(pickle.dumps(frame)) < 2500


def test_supervision_takes_it() -> None:
    detections = result(encode(MASKS), 0, 5).to_supervision()
    assert isinstance(detections, supervision.Detections)
    assert detections.xyxy.tolist() == [[4, 1, 7, 3], [0, 0, 1, 6]]
    assert detections.mask is not None
    assert np.array_equal(np.asarray(detections.mask), MASKS.numpy())
    assert detections.confidence is not None
    assert detections.confidence.tolist() == [0.75, 0.5]
    assert detections.class_id is not None
    assert detections.class_id.tolist() == [4, 1]
    assert detections.tracker_id is not None
    assert detections.tracker_id.tolist() == [0, 5]
    assert list(detections.data["class_name"]) == ["star", "disc"]
    best = detections[detections.confidence > 0.6]
    assert list(best.data["class_name"]) == ["star"]
    image = np.zeros((6, 8, 3), dtype=np.uint8)
    assert supervision.MaskAnnotator().annotate(image, detections).any()


def test_supervision_takes_a_frame_without_tracks() -> None:
    detections = result(encode(MASKS[:0])).to_supervision()
    assert len(detections) == 0
    assert len(supervision.Detections.merge([detections, result(encode(MASKS), 0, 5).to_supervision()])) == 2


def test_without_supervision_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "supervision":
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install --editable '\.\[supervision\]'"):
        result(encode(MASKS), 0, 5).to_supervision()
