from pathlib import Path

import pytest

from jobs.compact import main
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name, put_part


def test_parts_are_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = Results(Storage(str(tmp_path)))
    for i in range(3):
        put_part(results, part_name(1, i), f"v{i}")
    assert main(["--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"3 parts → 1, 0.0 MB → {tmp_path}\n"
    assert len(results.parts()) == 1


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--output", str(tmp_path / "absent")]) == 2
    assert main(["--output", str(tmp_path), "--part_mb", "large"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("absent does not exist; correct the path")
    assert first.startswith("compact: error: ")
    assert "part_mb" in second
