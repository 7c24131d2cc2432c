import pytest

from jobs.progress import ProgressCount, ProgressLine


def test_progress_is_a_line_in_a_terminal_and_log_lines_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("jobs.progress.time.monotonic", lambda: now)
    count = ProgressCount("videos")
    for now in (1.0, 10.5, 11.0, 21.0):
        count(int(now), 30)
    assert capsys.readouterr().err == "10/30 videos\n21/30 videos\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for now in (21.05, 22.0, 22.01, 23.0):
        count(int(now), 23)
    assert capsys.readouterr().err == "\r\x1b[K22/23 videos\r\x1b[K23/23 videos\n"


def test_a_line_that_is_broken_off_can_be_ended_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("jobs.progress.time.monotonic", lambda: now)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    line = ProgressLine()
    line.end()
    now = 1.0
    line.show("1/2", finished=False)
    line.end()
    line.end()
    assert capsys.readouterr().err == "\r\x1b[K1/2\n"
