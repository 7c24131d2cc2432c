import json
from pathlib import Path

import pytest

from jobs.export import main
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.pipelines.archive.exports import put
from tests.pipelines.archive.labels import part_name, put_part


def test_tracks_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels, output = tmp_path / "labels", tmp_path / "out"
    put_part(Results(Storage(str(labels))), part_name(1), "v", "w")
    options = ["--labels", str(labels), "--output", str(output)]
    assert main([*options, "--format", "coco"]) == 0
    assert capsys.readouterr().out == f"2 tracks of 2 videos → {output}\n"
    assert len(json.loads((output / "annotations.json").read_text())["annotations"]) == 4
    assert main([*options, "--format", "voc"]) == 2
    assert main([*options]) == 2
    wrong, missing = capsys.readouterr().err.splitlines()
    assert wrong.startswith("export: error: format: expected")
    assert "format" in missing


def test_tracks_that_lose_their_masks_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels, output = tmp_path / "labels", tmp_path / "out"
    put(Results(Storage(str(labels))), part_name(1), {name: {1: ("star", 0.5, (0, 3))} for name in "vw"})
    assert main(["--labels", str(labels), "--output", str(output), "--format", "cvat"]) == 0
    loss = "boxes without masks: 2 tracks (v/1, w/1)"
    assert capsys.readouterr().out == f"2 tracks of 2 videos → {output}; {loss}\n"
