import pickle
from typing import Any

import numpy as np
import pytest
import torch

from openvis_model.inst_former import InstFormer
from pipelines.labelling import model_stage
from pipelines.labelling.batch import LabelledBatch
from pipelines.labelling.model_stage import Model
from pipelines.video.plan import VideoInfo

INFO = VideoInfo(frames=2, fps=4.0, width=200, height=150, duration_s=0.5, codec="h264", reader="pyav")
HEAD = LabelledBatch(video_id="v", uri="/v.mp4", info=INFO, frame=(0, 1), time_s=(0.0, 0.25))


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(None, device="cpu", actors=1, precision="float32", compile=False, objectness_floor=0.0)


def row(head: LabelledBatch, frames: np.ndarray) -> dict[str, Any]:
    return {"head": [pickle.dumps(head)], "frames": [frames]}


def result(rows: dict[str, Any]) -> LabelledBatch:
    assert rows["video_id"] == ["v"]
    batch: LabelledBatch = pickle.loads(rows["labelled"][0])
    return batch


def test_instances_are_those_of_the_model_at_the_size_of_the_video(model: Model) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), np.uint8)
    labelled = result(model(row(HEAD, frames)))
    expected = model.model(torch.from_numpy(frames), objectness_floor=0.0, frame_size=(150, 200))
    found = pickle.loads(labelled.instances)
    assert len(found) == 2
    for a, b in zip(found, expected, strict=True):
        assert a.masks == b.masks
        assert a.masks.size == (150, 200)
        assert torch.equal(a.instance_tokens, b.instance_tokens)
    assert labelled.model_s > 0
    assert labelled.error is None


def test_a_failure_of_the_model_is_the_videos_error(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(InstFormer, "forward", fail)
    labelled = result(model(row(HEAD, np.zeros((2, 96, 128, 3), np.uint8))))
    assert labelled.error == "model failed on frames from 0: RuntimeError('out of memory')"


def test_a_device_that_is_out_of_order_ends_the_process(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """After, say, an illegal memory access CUDA refuses all work of a process: no later video may be blamed for it."""

    def fail(*_: Any, **__: Any) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    def end(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(InstFormer, "forward", fail)
    monkeypatch.setattr(model_stage.os, "_exit", end)
    with pytest.raises(SystemExit) as stop:
        model(row(HEAD, np.zeros((2, 96, 128, 3), np.uint8)))
    assert stop.value.code == 1


def test_batches_without_frames_pass_through(model: Model) -> None:
    head = LabelledBatch(video_id="v", uri="/v.mp4", error="not a video file")
    assert result(model(row(head, np.zeros((0, 1, 1, 3), np.uint8)))) == head
