from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.search import main
from pipelines.archive.search import Hit, SearchResult
from pipelines.overlays.contact_sheet import Tile

HIT = Hit(
    similarity=0.4321,
    video_id="v",
    uri="/videos/v.mp4",
    track_id=3,
    category="red star",
    score=0.5,
    objectness=0.9,
    first_frame=0,
    last_frame=700,
    frame=600,
    time_s=75.04,
    mask={},
)


def test_a_line_per_track_and_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, left_out = dict[str, str](), ()
    tile = Tile(image=np.zeros((30, 40, 3), np.uint8), video="v.mp4", time_s=75.04)
    monkeypatch.setattr(
        "pipelines.archive.search.search", lambda _: SearchResult(hits=(HIT,), tracks=9, left_out=left_out, failures={})
    )
    monkeypatch.setattr("pipelines.overlays.pictures.pictures", lambda _: ([tile], failures))
    options = ["--labels", str(tmp_path), "--text", "red star", "--sheet", str(tmp_path / "found.png")]
    assert main(options) == 0
    header, line, end = capsys.readouterr().out.splitlines()
    assert header.split() == ["similarity", "at", "track", "labelled", "as"]
    assert line.split() == ["1", "0.432", "1:15.0", "3", "red", "star", "v", "/videos/v.mp4"]
    assert end.startswith("9 tracks in ")
    with Image.open(tmp_path / "found.png") as sheet:
        assert sheet.width > 40
    failures["/videos/v.mp4"] = "video: cannot read /videos/v.mp4 (file not found)"
    assert main(options) == 1
    assert "failed: /videos/v.mp4: video: cannot read" in capsys.readouterr().err
    failures.clear()
    left_out = ("a",)
    assert main(options) == 1
    expected = "search: 1 videos were labelled with another model and are left out: a\n"
    assert capsys.readouterr().err == expected


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = str(tmp_path)
    for options, error in (
        (["--labels", "absent", "--text", "red star"], "labels: absent does not exist"),
        (["--labels", labels, "--text", "red star"], f"labels: {labels} has no labels"),
        (["--labels", "absent"], "text"),
        (["--labels", labels, "--text", "a", "--sheet", "a.gif"], "sheet: a.gif must end with .png"),
        (
            ["--labels", labels, "--text", "a", "--sheet", f"{__file__}/a.png"],
            f"sheet: cannot write {__file__}/a.png",
        ),
        (["--labels", labels, "--text", "a", "--image", "b.jpg"], "text, image: both are given; give one of the two"),
        (["--labels", labels, "--image", "cup.gif"], "image: 'cup.gif' is neither a picture"),
        (["--labels", labels, "--image", "absent.jpg"], "image: absent.jpg: cannot read absent.jpg (No such file"),
        (["--labels", labels, "--text", " , "], "text: ' , ' has an empty word"),
    ):
        assert main(options) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"search: error: {error}") or error in line


def test_an_interruption_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Any) -> SearchResult:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.archive.search.search", interrupted)
    assert main(["--labels", ".", "--text", "red star"]) == 75
    assert "interrupted; nothing is written" in capsys.readouterr().err
