import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import jobs.compact
import jobs.evaluate
import jobs.search
from jobs.command import check_kept, check_present, run_job


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("output: is\nof another"), 2, "label: error: output: is of another"),
        (RuntimeError("it broke off"), 1, "label: error: it broke off"),
        (OSError(28, "No space left on device", "/a"), 1, "label: error: /a: No space left on device"),
        (KeyboardInterrupt(), os.EX_TEMPFAIL, "label: interrupted; run it again"),
    ],
)
def test_how_a_job_ends(error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise error

    assert run_job("label", work, interrupted="run it again") == code
    assert capsys.readouterr().err == f"{message}\n"
    assert run_job("label", lambda: 3, interrupted="run it again") == 3


def test_an_output_that_goes_with_the_job_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `ray job submit --working-dir .` runs it."""
    folder = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert jobs.compact.main(["--labels", "labels/"]) == 2
    assert "labels: labels/ is in the cluster's copy of the working folder" in capsys.readouterr().err
    (folder / "sweep.yaml").write_text(
        "output: runs\ndatasets: [{name: a, protocol: shapes, ground_truth: a.json}]\ncheckpoints: [{name: b}]\n"
    )
    assert jobs.evaluate.main(["run", "--config", "sweep.yaml"]) == 2
    assert "output: runs is in the cluster's copy of the working folder" in capsys.readouterr().err
    assert jobs.search.main(["--labels", str(tmp_path), "--text", "star", "--sheet", "found.png"]) == 2
    assert "sheet: found.png is in the cluster's copy of the working folder" in capsys.readouterr().err
    assert jobs.compact.main(["--labels", str(tmp_path)]) == 2
    assert "has no labels" in capsys.readouterr().err


def test_absent_inputs_are_named(tmp_path: Path) -> None:
    for path in (None, str(tmp_path), "s3://bucket/absent", "videos/*.mp4"):
        check_present("input", path)
    with pytest.raises(ValueError, match="^input: absent.mp4 does not exist; correct the path$"):
        check_present("input", "absent.mp4")


@pytest.mark.parametrize("check", [check_kept, check_present])
def test_addresses_that_would_be_local_folders_are_refused(check: Callable[[str, str], None], tmp_path: Path) -> None:
    for address in ("s3://bucket/x", "gs://bucket", "runs/s3/x", str(tmp_path)):
        if check is check_kept or not address.startswith("runs"):
            check("output", address)
    for address, meant in (
        ("s3:/bucket/x", "s3://bucket/x"),
        ("gs:bucket", "gs://bucket"),
        ("https:/a.b/c", "https://a.b/c"),
    ):
        with pytest.raises(ValueError, match=f"^output: {address} has too few slashes for .*; write {meant}$"):
            check("output", address)


SIGNALS = ["SIGTERM", "SIGINT"]

WORK = """
import os, signal, sys, time
from jobs.command import run_job, start

def work():
    {}
    time.sleep(9)
    return 0

start(lambda: run_job("a", work, interrupted="again"))
"""


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("work", ["os.kill(os.getpid(), signal.{})", "import swallowing"])
def test_a_signal_interrupts_the_work(work: str, name: str, tmp_path: Path) -> None:
    """Also one that comes while a module is imported, whose code may swallow the interruption."""
    swallowing = f"try:\n    os.kill(os.getpid(), signal.{name})\n    time.sleep(0.5)\nexcept BaseException:\n    pass"
    (tmp_path / "swallowing.py").write_text(f"import os, signal, time\n{swallowing}\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", WORK.format(work.format(name))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (os.EX_TEMPFAIL, "a: interrupted; again\n")


def test_a_signal_interrupts_a_job_that_has_run_another() -> None:
    work = "run_job('b', lambda: 0, interrupted='')\n    os.kill(os.getpid(), signal.SIGTERM)"
    done = subprocess.run([sys.executable, "-c", WORK.format(work)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (os.EX_TEMPFAIL, "a: interrupted; again\n")


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_interrupts_the_imports_of_a_job(name: str, tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text(f"import os, signal, time\nos.kill(os.getpid(), signal.{name})\ntime.sleep(9)\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "jobs.label"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (os.EX_TEMPFAIL, "interrupted; run it again\n")


@pytest.mark.parametrize(
    ("work", "printed"),
    [
        ("raise RayDiedError('died')", "at work\n"),
        ("Thread(target=stay, daemon=True).start(); there.wait(); raise RuntimeError('died')", "at work\n"),
        ("raise RuntimeError('died')", "at work\nat the end\n"),
    ],
)
def test_a_job_does_not_wait_for_a_ray_that_cannot_end(work: str, printed: str) -> None:
    """It ends before what runs at the end of Python, where Ray's own end is."""
    script = """
import atexit
from jobs.command import run_job, start
from pipelines.cluster.liveness import RayDiedError, waiting_for_ray
from threading import Event, Thread
there = Event()
def stay():
    with waiting_for_ray():
        there.set()
        Event().wait()
atexit.register(print, "at the end")
def work():
    print("at work")
    {work}
start(lambda: run_job("a", work, interrupted=""))
"""
    command = [sys.executable, "-c", script.format(work=work)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, printed, "a: error: died\n")
