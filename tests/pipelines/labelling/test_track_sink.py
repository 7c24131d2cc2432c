from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from pipelines.labelling.track_sink import TrackSink


def test_all_batches_of_a_video_go_to_one_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.labelling.track_sink.ray.get", lambda waited: waited)
    taken: list[list[bytes]] = [[], [], []]

    def tracker(its: list[bytes]) -> Any:
        return SimpleNamespace(add=SimpleNamespace(remote=its.extend))

    sink = TrackSink([tracker(its) for its in taken])
    names = [f"video-{i}" for i in range(30)]
    for number in range(4):
        labelled = [f"{name}/{number}".encode() for name in names]
        sink.write([pa.table({"video_id": names, "labelled": labelled})], None)
    owners = [{batch.decode().split("/")[0] for batch in its} for its in taken]
    assert set.union(*owners) == set(names)
    assert sum(map(len, owners)) == 30
    assert all(owners)
    assert sum(map(len, taken)) == 120
    assert [batch for batch in taken[0] if batch.startswith(min(owners[0]).encode())] == sorted(
        batch for batch in taken[0] if batch.startswith(min(owners[0]).encode())
    )
