from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from pipelines.labelling.rows import LabelledRow
from pipelines.labelling.track_sink import Loss, TrackerActor, TrackSink


def test_all_batches_of_a_video_go_to_one_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.labelling.track_sink.ray.get", lambda references: references)
    received: list[list[pa.Table]] = [[], [], []]

    def tracker(tables: list[pa.Table]) -> Any:
        return SimpleNamespace(add=SimpleNamespace(remote=tables.append))

    sink = TrackSink([tracker(tables) for tables in received])
    names = [f"video-{i}" for i in range(30)]
    for number in range(4):
        block = pa.concat_tables(
            LabelledRow(video_id=name, uri="", batch=number, instances=name.encode()).to_table() for name in names
        )
        sink.write([block, pa.table({})], None)
    assert {table.schema for tables in received for table in tables} == {LabelledRow.schema()}
    rows = [[row for table in tables for row in LabelledRow.from_table(table)] for tables in received]
    owners = [{row.video_id for row in tracker_rows} for tracker_rows in rows]
    assert set.union(*owners) == set(names)
    assert sum(map(len, owners)) == 30
    assert all(owners)
    assert all(row.instances == row.video_id.encode() for tracker_rows in rows for row in tracker_rows)
    for videos, tracker_rows in zip(owners, rows, strict=True):
        for name in videos:
            assert [row.batch for row in tracker_rows if row.video_id == name] == [0, 1, 2, 3]


def test_a_video_that_a_machine_failed_to_read_is_dropped_and_reported(tmp_path: Path) -> None:
    here, gone = tmp_path / "here.mp4", tmp_path / "gone.mp4"
    here.touch()
    writers = Notes()
    actor = TrackerActor(writers)
    seen = LabelledRow(video_id="here", uri=str(here), segments=2, node="good")
    actor.add(seen.to_table())
    lost: dict[str, Any] = {"error": "file not found", "lost": True, "node": "bad"}
    actor.add(replace(seen, segment=1, **lost).to_table())
    actor.add(replace(seen, segment=1).to_table())  # comes too late
    actor.add(LabelledRow(video_id="gone", uri=str(gone), **lost).to_table())
    assert actor.losses() == ({"here": Loss("bad", "file not found")}, {"good"})
    assert writers.finished == {"gone": "failed"}  # here it is absent as well
    assert writers.discarded == ["here"]
    assert actor.drain() == 0


class Notes:
    """Writers that take notes."""

    def __init__(self) -> None:
        self.discarded: list[str] = []
        self.finished: dict[str, str] = {}

    def new(self, video_id: str, uri: str) -> Any:
        return SimpleNamespace(
            video_id=video_id,
            tracks=0,
            model_s=0.0,
            tracker_s=0.0,
            add=lambda batch: "failed" if batch.error else None,
            discard=lambda: self.discarded.append(video_id),
        )

    def take(self, writer: Any, status: str) -> None:
        self.finished[writer.video_id] = status

    def sees_output(self) -> bool:
        return True

    def commit(self, *, due: bool = False) -> None:
        pass

    def discard(self) -> None:
        pass
