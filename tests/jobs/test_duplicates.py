from pathlib import Path

import pytest

from jobs.duplicates import main
from pipelines.archive.parts import Rows
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name, row


def test_pairs_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = Rows()
    for video_id in "ab":
        rows.add("tracks", [row("tracks", video_id=video_id, track_id=0, frames=3, embedding=[0.6, 0.8])])
        rows.add("videos", [row("videos", video_id=video_id, status="ok", model_fingerprint="m")])
    rows.put(Results(Storage(str(tmp_path))).storage, part_name(1))
    assert main(["--labels", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("1 pairs of 2 videos, 1 pairs of 2 tracks in ")
    assert told.endswith(f" s → {tmp_path}/duplicates.parquet\n")


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = str(tmp_path)
    for options, error in (
        (["--labels", "absent"], "labels: absent does not exist"),
        (["--labels", labels], f"labels: {labels} has no labels"),
        (["--labels", labels, "--threshold", "1.5"], "threshold: expected more than 0 and at most 1, got 1.5"),
        (["--labels", labels, "--min_share", "0"], "min_share: expected more than 0 and at most 1, got 0.0"),
        (["--labels", labels, "--top", "0"], "top: expected at least 1, got 0"),
    ):
        assert main(options) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"duplicates: error: {error}")
