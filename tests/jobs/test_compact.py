from pathlib import Path

import pytest
from deltalake import DeltaTable

from jobs.compact import main
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.pipelines.archive.delta import read_table
from tests.pipelines.archive.labels import part_name, put_part


def test_parts_are_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = Results(Storage(str(tmp_path)))
    for i in range(3):
        put_part(results, part_name(1, i), f"v{i}")
    assert main(["--labels", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"3 parts → 1, 0.0 MB → {tmp_path}\n"
    assert len(results.parts()) == 1


def test_a_log_that_cannot_be_used_is_refused_and_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = Results(Storage(str(tmp_path)))
    for i in range(2):
        put_part(results, part_name(1, i), f"v{i}")
    assert main(["--labels", str(tmp_path)]) == 0
    before = read_table(str(tmp_path), "tracks")
    (tmp_path / "tracks" / "_delta_log" / f"{0:020}.json").write_text("{junk")
    capsys.readouterr()
    assert main(["--labels", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; start a new log with jobs.compact --repair true")
    assert main(["--labels", str(tmp_path), "--repair", "true"]) == 0
    assert [DeltaTable(tmp_path / table).version() for table in SCHEMAS] == [0, 0, 0]
    assert read_table(str(tmp_path), "tracks").num_rows == before.num_rows == 2


def test_replaced_parts_can_be_deleted_at_once(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    for i in range(3):
        put_part(results, part_name(1, i), f"v{i}")
    assert main(["--labels", str(tmp_path)]) == 0
    assert len(set(results.names("tracks"))) == 4
    assert main(["--labels", str(tmp_path), "--keep_h", "0"]) == 0
    assert list(results.names("tracks")) == results.parts()


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--labels", str(tmp_path / "absent")]) == 2
    assert main(["--labels", str(tmp_path), "--part_mb", "large"]) == 2
    assert main(["--labels", str(tmp_path), "--keep_h", "-1"]) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.endswith("absent does not exist; correct the path")
    assert first.startswith("compact: error: ")
    assert "part_mb" in second
    assert third.endswith("keep_h: expected at least 0, got -1.0")
