import json
from pathlib import Path

import pytest

from pipelines.archive.run_report import run_report
from pipelines.storage.files import Storage


def test_a_run_that_ends(tmp_path: Path) -> None:
    with run_report(Storage(str(tmp_path)), "000001-a", {"videos": 3}) as report:
        report["ok"] = 2
        (file,) = (tmp_path / "runs").iterdir()
        assert json.loads(file.read_text())["outcome"] == "unfinished"  # if its process is killed now
    (file,) = (tmp_path / "runs").iterdir()
    found = json.loads(file.read_text())
    assert (file.stem, found["id"]) == ("000001-a", "000001-a")
    assert (found["outcome"], found["error"], found["videos"], found["ok"]) == ("done", None, 3, 2)
    assert found["seconds"] >= 0
    assert found["versions"]["openvis"]


@pytest.mark.parametrize(
    ("error", "outcome", "said"),
    [(RuntimeError("no é progress"), "broken", "no é progress"), (KeyboardInterrupt(), "interrupted", None)],
)
def test_a_run_that_breaks_off(tmp_path: Path, error: BaseException, outcome: str, said: str | None) -> None:
    with pytest.raises(type(error)), run_report(Storage(str(tmp_path)), "000001-a", {"ok": 1}):
        raise error
    (file,) = (tmp_path / "runs").iterdir()
    found = json.loads(file.read_text())
    assert (found["outcome"], found["error"], found["ok"]) == (outcome, said, 1)


def test_a_storage_that_is_full_hides_no_error(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()  # no folder can be made
    with pytest.raises(ValueError, match="the error"), run_report(Storage(str(tmp_path)), "000001-a", {}):
        raise ValueError("the error")
