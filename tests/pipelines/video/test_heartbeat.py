import pytest

from pipelines.video import heartbeat


def test_it_beats_about_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[float] = []
    times = [100.0, 102.0, 102.9, 103.1, 103.2, 105.0]
    clock = iter(times)
    monkeypatch.setattr(heartbeat, "_listeners", [])
    monkeypatch.setattr(heartbeat, "_last", 0.0)
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: next(clock))
    heartbeat.beat()  # nobody listens
    heartbeat.on_beat(lambda: beats.append(heartbeat._last))
    for _ in times[1:]:
        heartbeat.beat()
    assert beats == [102.0, 103.1, 105.0]
