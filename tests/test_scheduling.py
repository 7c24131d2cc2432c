import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

DIES_ONCE = """
import os, pathlib, pytest
@pytest.mark.parametrize("number", range(3))
def test(number):
    seen = pathlib.Path(__file__).with_suffix(".seen")
    if number == 1 and not seen.exists():
        seen.touch()
        os._exit(1)
"""


def test_all_else_is_tested_where_a_process_dies(tmp_path: Path) -> None:
    """Its unfinished tests run in another process, and the run ends."""
    for number in range(12):
        (tmp_path / f"test_{number:02}.py").write_text("def test(): pass\n")
    (tmp_path / "test_12.py").write_text(DIES_ONCE)
    (tmp_path / "test_13.py").write_text("import time\ndef test(): time.sleep(1)\n")
    options = [
        "-n",
        "2",
        "--dist",
        "loadfile",
        "--no-loadscope-reorder",
        "-p",
        "tests.scheduling",
        "-p",
        "no:cacheprovider",
    ]
    command = [sys.executable, "-m", "pytest", *options, "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout.splitlines()[-1].strip("= ").startswith("1 failed, 16 passed"), done.stdout
    assert "crashed while running 'test_12.py::test[1]'" in done.stdout
