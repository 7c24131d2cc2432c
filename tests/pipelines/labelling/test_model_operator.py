from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from openvis_model.frame_model import FrameModel
from pipelines.labelling import model_operator
from pipelines.labelling.instance_bytes import decode_instances
from pipelines.labelling.model_operator import Model
from pipelines.labelling.rows import BatchRow, LabelledRow
from pipelines.shapes.render import render
from pipelines.shapes.scenes import SceneConfig
from pipelines.video.plan import VideoInfo
from tests.pipelines.labelling.discs import BUILT_IN_MODEL

INFO = VideoInfo(frames=2, fps=4.0, width=200, height=150, duration_s=0.5, codec="h264")
BATCH = BatchRow(
    video_id="v",
    uri="/v.mp4",
    info=INFO,
    frame=np.array([0, 1]),
    time_s=np.array([0.0, 0.25]),
    frames=np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), np.uint8),
)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(BUILT_IN_MODEL, device="cpu", actors=1, precision="float32", compile=False, objectness_floor=0.0)


def label(model: Model, batch: BatchRow) -> LabelledRow:
    table = model(batch.to_table())
    assert table.schema == LabelledRow.schema()
    (row,) = LabelledRow.from_table(table)
    return row


def test_instances_are_those_of_the_model_at_the_size_of_the_video(model: Model) -> None:
    labelled = label(model, BATCH)
    expected = model.model(torch.from_numpy(BATCH.frames), objectness_floor=0.0, frame_size=(150, 200))
    frames = decode_instances(labelled.instances)
    assert len(frames) == 2
    for a, b in zip(frames, expected, strict=True):
        assert a.masks == b.masks
        assert a.masks.size == (150, 200)
        assert torch.equal(a.instance_tokens, b.instance_tokens)
    assert labelled.model_s > 0
    assert labelled.error is None
    assert (labelled.frame.tolist(), labelled.time_s.tolist()) == ([0, 1], [0.0, 0.25])


def test_a_failure_of_the_model_is_the_videos_error(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(FrameModel, "forward", fail)
    labelled = label(model, BATCH)
    assert labelled.error == "model failed on frames from 0: RuntimeError('out of memory')"


def test_a_failed_device_ends_the_process(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """After, say, an illegal memory access CUDA refuses all work of a process: no later video may be blamed for it."""

    def fail(*_: Any, **__: Any) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    def end(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(FrameModel, "forward", fail)
    monkeypatch.setattr(model_operator.os, "_exit", end)
    with pytest.raises(SystemExit) as stop:
        label(model, BATCH)
    assert stop.value.code == 1


def test_batches_without_frames_pass_through(model: Model) -> None:
    empty = BatchRow(video_id="v", uri="/v.mp4", info=INFO, segment=2)
    for batch in (empty, replace(BATCH, error="not a video file")):
        labelled = label(model, batch)
        assert labelled.to_table().equals(batch.to(LabelledRow).to_table())
        assert (labelled.instances, labelled.model_s) == (b"", 0.0)


def test_bfloat16_finds_the_same_objects(model: Model) -> None:
    """Its rounding moves scores a little."""
    low = Model(BUILT_IN_MODEL, device="cpu", actors=1, precision="bfloat16", compile=False, objectness_floor=0.0)
    batch = replace(BATCH, frames=render(SceneConfig(frames=2), "novel", 0, 0).frames)
    for a, b in zip(*(decode_instances(label(each, batch).instances) for each in (model, low)), strict=True):
        assert (a.objectness > 0.5).any()
        torch.testing.assert_close(b.objectness, a.objectness, atol=0.1, rtol=0)
        assert not torch.equal(b.objectness, a.objectness)
        assert b.objectness.dtype == b.instance_tokens.dtype == torch.float32
