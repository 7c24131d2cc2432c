from pathlib import Path

import pytest

from jobs.identities import main
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name, put_tracks


def test_identities_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracks = [
        {"video_id": "a", "track_id": number, "frames": 3, "first_frame": 4 * number, "last_frame": 4 * number + 2}
        for number in range(3)
    ]
    vectors = ([0.6, 0.8], [0.6, 0.8], [-0.8, 0.6])
    rows = [{**track, "embedding": vector} for track, vector in zip(tracks, vectors, strict=True)]
    put_tracks(Results(Storage(str(tmp_path))), part_name(1), "m", *rows)
    assert main(["--labels", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("2 identities of 3 tracks, 1 of them with several, in ")
    assert told.endswith(f" s → {tmp_path}/identities.parquet\n")


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, error in (
        (["--labels", "absent"], "labels: absent does not exist"),
        (["--labels", str(tmp_path)], f"labels: {tmp_path} has no labels"),
        (["--labels", str(tmp_path), "--threshold", "0"], "threshold: expected more than 0 and at most 1, got 0.0"),
    ):
        assert main(options) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"identities: error: {error}")
