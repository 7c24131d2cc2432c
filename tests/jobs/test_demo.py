import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from jobs import demo
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage


@pytest.mark.slow
def test_demo_ends_with_tables_overlays_and_a_contact_sheet(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.demo", "--output", tmp_path / "demo", "--videos", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "2 of 2 videos labelled: 48 frames" in done.stdout
    assert done.stdout.rstrip().endswith(f"-m jobs.review --labels {tmp_path / 'demo' / 'labels'}")
    results = Results(Storage(str(tmp_path / "demo/labels")))
    assert set(results.read("videos")["status"].to_pylist()) == {"ok"}
    assert results.read("masks").num_rows > 0
    assert len(list((tmp_path / "demo").glob("novel-0-*.mp4"))) == 2
    with Image.open(tmp_path / "demo/contact-sheet.png") as sheet:
        assert sheet.width > 1500


@pytest.mark.parametrize("inside", ["precious", "labels/precious"])
def test_demo_refuses_a_folder_that_is_not_its_own(tmp_path: Path, inside: str) -> None:
    file = tmp_path / inside
    file.parent.mkdir(exist_ok=True)
    file.write_text("x")
    assert demo.main(["--output", str(tmp_path)]) == 2
    assert file.read_text() == "x"


def test_a_later_demo_removes_only_what_an_earlier_one_made(tmp_path: Path) -> None:
    for name in ("novel/a", "labels/b", "novel-0-00000.mp4", "contact-sheet.png", "mine.txt", "mine/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    demo.remove_earlier(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["c", "mine", "mine.txt"]


def test_demo_refuses_bad_numbers_before_it_removes_anything(tmp_path: Path) -> None:
    (tmp_path / demo.MARKER).touch()
    (tmp_path / "contact-sheet.png").touch()
    assert demo.main(["--output", str(tmp_path), "--videos", "0"]) == 2
    assert demo.main(["--output", str(tmp_path / "contact-sheet.png")]) == 2
    assert (tmp_path / "contact-sheet.png").exists()
