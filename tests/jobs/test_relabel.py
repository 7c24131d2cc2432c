from typing import Any

import pytest

from jobs.relabel import main
from pipelines.archive.relabel import RelabelSummary

OPTIONS = ["--labels", ".", "--output", "new", "--vocabulary", __file__]


def test_it_says_what_was_done(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    failures, left_out = dict[str, str](), ()

    def done(*_: Any) -> RelabelSummary:
        return RelabelSummary(videos=5, skipped=2, tracks=70, left_out=left_out, failures=failures, seconds=1.6)

    monkeypatch.setattr("pipelines.archive.relabel.relabel", done)
    assert main(OPTIONS) == 0
    assert capsys.readouterr().out == "70 tracks of 5 videos renamed in 2 s, 2 videos already done → new\n"
    failures["000001"] = "tracks/000001.parquet: damaged"
    assert main(OPTIONS) == 1
    assert capsys.readouterr().err == "relabel: failed: 000001: tracks/000001.parquet: damaged\n"
    failures.clear()
    left_out = ("a", "b", "c", "d")
    assert main(OPTIONS) == 1
    expected = "relabel: 4 videos were labelled with another model and are left out: a, b, c, …\n"
    assert capsys.readouterr().err == expected


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*OPTIONS, "--tpo", "3"]) == 2
    assert main([*OPTIONS, "--top", "0"]) == 2
    assert main([*OPTIONS, "--vocabulary", "names.txt"]) == 2
    unknown, top, vocabulary = capsys.readouterr().err.splitlines()
    assert unknown == "relabel: error: tpo: no such option; did you mean top?"
    assert top == "relabel: error: top: expected at least 1, got 0"
    assert vocabulary == "relabel: error: vocabulary: names.txt does not exist; correct the path"
