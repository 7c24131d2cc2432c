"""The operators as Ray Data runs them; `test_passes.py` and `test_run.py` test what comes of it."""

import asyncio
import threading
from inspect import signature
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from ray.data import Dataset

from openvis_model.options import VideoTrackerConfig
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.pipeline import group_size, label, write
from pipelines.labelling.rows import LOAD, BatchRow, LabelledRow, SegmentRow, unpack_load
from pipelines.video.sources import Video
from tests.pipelines.labelling.discs import BUILT_IN_MODEL, DiscModel
from tests.pipelines.video.clips import H264, write_clip


@pytest.mark.slow
def test_the_schema_of_every_operator_is_the_declared_one(
    cluster: None, disc_model: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every block, whether its videos are good, of another size, or have failed and are null in half the columns."""
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 99)
    write_clip(tmp_path / "good.mp4", options=H264)
    write_clip(tmp_path / "wide.mp4", size=(96, 192), options=H264)
    videos = [Video(video_id=path.stem, uri=str(path)) for path in sorted(tmp_path.iterdir())]
    datasets: list[Dataset] = []
    map_batches = Dataset.map_batches_internal

    def keep(self: Dataset, *arguments: Any, **options: Any) -> Dataset:
        assert options.keys() <= signature(map_batches).parameters.keys()  # Ray 2.64 takes no others
        datasets.append(map_batches(self, *arguments, **options))
        return datasets[-1]

    monkeypatch.setattr(Dataset, "map_batches_internal", keep)
    config = LabelConfig(
        input="",
        output="",
        vocabulary="",
        batch_size=20,
        segment_frames=32,
        objectness_floor=0.0,
        tracker=VideoTrackerConfig(objectness_threshold=0.0),
    )
    label(videos, config, BUILT_IN_MODEL, short_side=96)
    assert len(datasets) == 3
    for dataset, kind, rows in zip(datasets, (SegmentRow, BatchRow, LabelledRow), (5, 7, 7), strict=True):
        schema = LOAD if kind is SegmentRow else kind.schema()
        result = dataset.materialize()
        assert result.schema().base_schema == schema
        tables = ray.get(result.to_arrow_refs())
        assert {table.schema for table in tables} == {schema}
        read = [row for table in tables for row in (unpack_load if schema is LOAD else kind.from_table)(table)]
        assert len(read) == rows
        assert {(row.video_id, row.error) for row in read} == {
            ("good", None),
            ("junk", "not a video file"),
            ("wide", None),
        }
        if kind is BatchRow:
            assert {row.frames.shape for row in read} == {
                *((n, 96, width, 3) for n in (20, 12, 16) for width in (128, 192)),
                (0, 1, 1, 3),
            }
    operators = [line.split(":")[0] for line in result.stats().splitlines() if line.startswith("Operator")]
    assert [name.split()[-1] for name in operators[1:]] == [  # none is fused with another
        "MapBatches(Plan)",
        "StreamingRepartition[num_rows_per_block=1,strict=False]",
        "MapBatches(Decode)",
        "MapBatches(DiscModel)",
    ]


class Slow:
    """A tracker that is slower than the model, and counts the tasks that wait for it."""

    def __init__(self) -> None:
        self.waiting = self.most = 0

    async def add(self, batches: Any) -> None:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await asyncio.sleep(0.3)
        self.waiting -= 1

    async def most_waiting(self) -> int:
        return self.most


@pytest.mark.nightly
def test_two_batches_wait_for_a_tracker(cluster: None) -> None:
    """More would each be another process, as long as the model is ahead."""
    tracker = ray.remote(num_cpus=0)(Slow).remote()
    dataset = ray.data.from_items([{"video_id": str(number)} for number in range(12)], override_num_blocks=12)
    write(dataset, [tracker]).result()
    assert ray.get(tracker.most_waiting.remote()) == 2


def test_many_local_videos_share_tasks() -> None:
    """Once every CPU has four; never those that have to be downloaded."""
    sizes = {count: group_size([Video(video_id="v", uri="/v.mp4")] * count, 3.0) for count in (1, 23, 24, 60, 10_000)}
    assert sizes == {1: 1, 23: 1, 24: 2, 60: 5, 10_000: 16}
    assert group_size([Video(video_id="v", uri="/v.mp4")] * 999 + [Video(video_id="w", uri="s3://b/w.mp4")], 3.0) == 1


class OneWaitsForTheOther(DiscModel):
    """Labels a batch once another one has come, too."""

    both = threading.Barrier(2)

    def __call__(self, batches: pa.Table) -> pa.Table:
        self.both.wait(timeout=60)
        return super().__call__(batches)


@pytest.mark.slow
def test_two_batches_are_on_their_way_through_a_gpu(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it never waits for what the processor does before and after."""
    monkeypatch.setattr("pipelines.labelling.pipeline.Model", OneWaitsForTheOther)
    for name in ("a", "b"):
        write_clip(tmp_path / f"{name}.mp4", options=H264)
    videos = [Video(video_id=path.stem, uri=str(path)) for path in sorted(tmp_path.iterdir())]
    config = LabelConfig(input="", output="", vocabulary="", model_gpus=1, segment_frames=None)
    tables = ray.get(label(videos, config, BUILT_IN_MODEL, short_side=96).to_arrow_refs())
    rows = [row for table in tables for row in LabelledRow.from_table(table)]
    assert {row.video_id for row in rows if row.instances} == {"a", "b"}
    assert {row.error for row in rows} == {None}
