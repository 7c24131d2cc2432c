import subprocess
import sys
from pathlib import Path

from PIL import Image

from pipelines.results import Results
from pipelines.storage import Storage


def test_demo_ends_with_tables_overlays_and_a_contact_sheet(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.demo", "--output", tmp_path / "demo", "--videos", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "UNTRAINED" in done.stdout
    assert "2 of 2 videos labelled: 48 frames" in done.stdout
    results = Results(Storage(str(tmp_path / "demo/labels")))
    assert set(results.read("videos")["status"].to_pylist()) == {"ok"}
    assert results.read("masks").num_rows > 0
    assert len(list((tmp_path / "demo").glob("novel-0-*.mp4"))) == 2
    with Image.open(tmp_path / "demo/contact-sheet.png") as sheet:
        assert sheet.width > 1500


def test_demo_does_not_remove_what_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    done = subprocess.run([sys.executable, "-m", "jobs.demo", "--output", tmp_path], capture_output=True, text=True)
    assert done.returncode == 2
    assert "holds something else" in done.stderr
    assert (tmp_path / "precious").exists()
