from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from pipelines.labelling.rows import LabelledRow
from pipelines.labelling.track_sink import TrackSink


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
