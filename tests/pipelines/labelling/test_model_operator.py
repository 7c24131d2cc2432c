import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from openvis_model.frame_model import FrameModel
from openvis_model.instances import Instances
from pipelines.labelling import model_operator
from pipelines.labelling.config import Precision
from pipelines.labelling.instance_bytes import decode_instances
from pipelines.labelling.model_operator import Model, fill_batches
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


def built_in(*, actors: int = 1, at_once: int = 1, threads: int | None = 1, precision: Precision = "float32") -> Model:
    return Model(
        BUILT_IN_MODEL,
        device="cpu",
        actors=actors,
        at_once=at_once,
        threads=threads,
        precision=precision,
        batch_size=4,
        compile=False,
        objectness_floor=0.0,
    )


@pytest.fixture(scope="module")
def model() -> Model:
    return built_in()


@pytest.mark.parametrize(
    ("actors", "at_once", "threads", "used"),
    [(1, 1, None, 8), (1, 1, 2, 2), (4, 1, None, 2), (4, 1, 3, 2), (99, 1, 3, 1), (1, 2, None, 4), (2, 2, 2, 1)],
)
def test_actors_and_their_calls_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, actors: int, at_once: int, threads: int | None, used: int
) -> None:
    monkeypatch.setattr(model_operator, "cores", lambda: 8)
    own = torch.get_num_threads()
    try:
        built_in(actors=actors, at_once=at_once, threads=threads)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == used
    finally:
        torch.set_num_threads(own)


@pytest.mark.parametrize(("threads", "together"), [(1, 1), (2, 2), (8, 2)])
def test_no_more_calls_work_at_once_than_have_a_thread(
    monkeypatch: pytest.MonkeyPatch, threads: int, together: int
) -> None:
    monkeypatch.setattr(model_operator, "cores", lambda: 8)
    own = torch.get_num_threads()
    at_work, most, lock, another = 0, 0, threading.Lock(), threading.Event()

    def forward(*_: Any, **__: Any) -> list[Instances]:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
            if at_work == 2:
                another.set()
        another.wait(0.2)
        with lock:
            at_work -= 1
        raise RuntimeError("seen")

    monkeypatch.setattr(FrameModel, "forward", forward)
    try:
        model = built_in(at_once=2, threads=threads)
        with ThreadPoolExecutor(3) as pool:
            rows = list(pool.map(label, [model] * 3, [BATCH] * 3))
    finally:
        torch.set_num_threads(own)
    assert most == together
    assert all(row.error and "seen" in row.error for row in rows)


def label(model: Model, batch: BatchRow) -> LabelledRow:
    table = model(batch.to_table())
    assert table.schema == LabelledRow.schema()
    (row,) = LabelledRow.from_table(table)
    return row


def test_calls_at_once_find_what_each_finds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks keep tables for the sizes that they have seen; another call may be writing them."""
    monkeypatch.setattr(model_operator, "cores", lambda: 2)
    own, drawn = torch.get_num_threads(), np.random.default_rng(0)
    sizes = [(96, 128), (128, 96), (64, 160), (160, 64)] * 2
    batches = [replace(BATCH, frames=drawn.integers(0, 256, (2, *size, 3), np.uint8)) for size in sizes]
    try:
        model, other = (built_in(at_once=2, threads=2) for _ in range(2))
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(label, [model] * len(batches), batches))
        alone = [label(other, batch) for batch in batches]
    finally:
        torch.set_num_threads(own)
    assert [row.error for row in together] == [None] * len(batches)
    assert [row.instances for row in together] == [row.instances for row in alone]


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


def test_memory_of_a_batch_that_does_not_fit_is_free_before_its_videos_are_tried_alone(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, alive = FrameModel.forward, list[weakref.ref[torch.Tensor]]()

    def forward(self: FrameModel, frames: torch.Tensor, **options: Any) -> list[Instances]:
        assert not any(activations() is not None for activations in alive)
        activations = frames.float()
        alive.append(weakref.ref(activations))
        if len(frames) > 2 or len(alive) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, frames, **options)

    monkeypatch.setattr(FrameModel, "forward", forward)
    table = model(pa.concat_tables([BATCH.to_table(), replace(BATCH, video_id="w").to_table()]))
    assert [row.error for row in LabelledRow.from_table(table)] == [None, None]
    assert len(alive) == 4  # both, the first twice, since another thread may have had the memory, and the second


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


def of_video(video_id: str, frames: int, *, width: int = 128, height: int = 150) -> BatchRow:
    return replace(
        BATCH,
        video_id=video_id,
        info=replace(INFO, height=height),
        frame=np.arange(frames),
        time_s=np.arange(frames) / 4,
        frames=np.random.default_rng(ord(video_id)).integers(0, 256, (frames, 96, width, 3), np.uint8),
    )


def test_short_videos_share_a_batch_if_their_sizes_are_the_same() -> None:
    empty = BatchRow(video_id="e", uri="/e.mp4", info=INFO)
    failed = replace(of_video("f", 2), error="not a video file")
    rows = [
        of_video("a", 3),
        of_video("b", 5),
        empty,
        of_video("c", 3, width=160),
        of_video("d", 8),
        failed,
        of_video("g", 2),
        of_video("h", 9),
        of_video("i", 1, height=300),
    ]
    groups = ["".join(row.video_id for row in group) for group in fill_batches(rows, 8)]
    assert groups == ["ef", "ab", "d", "g", "h", "i", "c"]


def test_videos_that_share_a_batch_are_labelled_as_alone(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [of_video("a", 1), of_video("b", 2), of_video("c", 3)]
    alone = [label(model, row) for row in rows]
    calls: list[int] = []
    forward = FrameModel.forward

    def count(self: FrameModel, frames: torch.Tensor, **options: Any) -> list[Instances]:
        calls.append(len(frames))
        return forward(self, frames, **options)

    monkeypatch.setattr(FrameModel, "forward", count)
    together = list(LabelledRow.from_table(model(pa.concat_tables(row.to_table() for row in rows))))
    assert calls == [3, 3]
    for a, b in zip(alone, together, strict=True):
        assert (a.video_id, a.frame.tolist()) == (b.video_id, b.frame.tolist())
        for one, other in zip(decode_instances(a.instances), decode_instances(b.instances), strict=True):
            assert one.masks == other.masks
            torch.testing.assert_close(one.instance_tokens, other.instance_tokens, atol=1e-5, rtol=0)


def test_only_the_video_that_a_batch_fails_for_has_failed(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [of_video("a", 1), replace(of_video("b", 1), frames=np.full((1, 96, 128, 3), 7, np.uint8)), of_video("c", 1)]
    forward = FrameModel.forward

    def fail(self: FrameModel, frames: torch.Tensor, **options: Any) -> list[Instances]:
        if (frames == 7).flatten(1).all(1).any():
            raise RuntimeError("these frames")
        return forward(self, frames, **options)

    monkeypatch.setattr(FrameModel, "forward", fail)
    labelled = LabelledRow.from_table(model(pa.concat_tables(row.to_table() for row in rows)))
    error = "model failed on frames from 0: RuntimeError('these frames')"
    assert {row.video_id: row.error for row in labelled} == {"a": None, "b": error, "c": None}


def test_bfloat16_finds_the_same_objects(model: Model) -> None:
    """Its rounding moves scores a little."""
    low = built_in(precision="bfloat16")
    batch = replace(BATCH, frames=render(SceneConfig(frames=2), "novel", 0, 0).frames)
    for a, b in zip(*(decode_instances(label(each, batch).instances) for each in (model, low)), strict=True):
        assert (a.objectness > 0.5).any()
        torch.testing.assert_close(b.objectness, a.objectness, atol=0.1, rtol=0)
        assert not torch.equal(b.objectness, a.objectness)
        assert b.objectness.dtype == b.instance_tokens.dtype == torch.float32
