import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from pipelines.storage.files import Storage
from pipelines.storage.lease import hold_lease
from pipelines.training.output import TrainingOutput
from pipelines.training.progress import TrainingProgress
from pipelines.training.run import train
from tests.pipelines.training.alone import curve, lines, train_alone
from tests.pipelines.training.points import PointsStage, settings
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def quick_checks(cluster: None) -> Iterator[None]:
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.1"
    yield
    del os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By two workers, which take each batch in two parts."""
    output = tmp_path_factory.mktemp("trained")
    summary = train(settings(output, validate_every=4, workers=2, accumulate=2), PointsStage())
    assert (summary.steps, summary.first_step, summary.restarts) == (8, 0, 0)
    assert summary.loss == lines(output)[-1]["loss"]
    assert summary.scores == {"error": lines(output)[-1]["validation/error"]}
    return output


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By one worker, without Ray."""
    output = tmp_path_factory.mktemp("alone")
    train_alone(settings(output, validate_every=4), PointsStage())
    return output


def test_the_output_is_whole(trained: Path) -> None:
    assert [line["step"] for line in lines(trained)] == list(range(1, 9))
    assert [line["step"] for line in lines(trained) if "validation/error" in line] == [4, 8]
    assert lines(trained)[7]["validation/error"] < lines(trained)[3]["validation/error"]
    assert all(line["seconds"] > line["data_seconds"] > 0 for line in lines(trained))
    assert TrainingOutput.open(str(trained)).checkpoints() == [7, 8]  # before the last validation, and after it
    assert [file.name for file in (trained / "model").iterdir()] == ["network.pt"]
    assert any("tfevents" in file.name for file in (trained / "tensorboard").iterdir())


def test_a_finished_training_is_not_repeated(trained: Path) -> None:
    before = (trained / "model/network.pt").stat().st_mtime_ns
    summary = train(settings(trained, validate_every=4), PointsStage(broken=0))
    assert (summary.first_step, summary.steps) == (8, 8)
    assert summary.loss == lines(trained)[-1]["loss"]
    assert (trained / "model/network.pt").stat().st_mtime_ns == before


def test_another_training_is_refused(trained: Path) -> None:
    with pytest.raises(ValueError, match="batch_size .output: 8, now: 16., seed .output: 0, now: 1., stage .output: p"):
        train(settings(trained, batch_size=16, seed=1), PointsStage(name="other"))


def test_workers_and_parts_see_the_loss_of_the_whole_batch(alone: Path, trained: Path) -> None:
    for a, b in zip(curve(alone), curve(trained), strict=True):
        assert b == pytest.approx(a, rel=1e-4)
    networks = [torch.load(output / "model/network.pt") for output in (alone, trained)]
    for name, tensor in networks[0].items():
        torch.testing.assert_close(networks[1][name], tensor, rtol=1e-4, atol=1e-6)


def test_a_second_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.storage.lease.RENEW_S", 0.5)
    with hold_lease(Storage(str(tmp_path))), pytest.raises(ValueError, match="output: .* being written by another run"):
        train(settings(tmp_path), PointsStage())
    assert not (tmp_path / "training.json").exists()


def test_a_killed_worker_is_replaced_and_bad_data_ends_a_training(trained: Path, tmp_path: Path) -> None:
    """Each on one of two workers, so that the other one waits for it."""
    seen: list[TrainingProgress] = []
    output = tmp_path / "output"
    config = settings(output, validate_every=4, workers=2, accumulate=2, max_failures=5)
    resumed_at = output / "checkpoints/step-00000003"  # which goes once step 7, the last before a validation, is stored
    stage = PointsStage(marker=tmp_path / "killed", kill=(0, 5), bad=(1, 7), bad_without=resumed_at)
    with pytest.raises(RuntimeError, match="the run broke off: a.json: video 3, b.mp4: cannot be read; its last"):
        train(config, stage, seen.append)
    assert (tmp_path / "killed").exists()
    assert (seen[-1].first_step, seen[-1].restarts) == (3, 1)
    assert curve(output)[:6] == curve(trained)[:6]
    assert TrainingOutput.open(str(output)).checkpoints() == [6, 7]
    assert not (output / "model").exists()


WAITS = """
import sys
from pathlib import Path
from jobs.command import run_job, start
from pipelines.cluster.connection import connect
from pipelines.storage import lease
from pipelines.training import run
from tests.pipelines.training.points import PointsStage, settings
run._TELL_S = lease.RENEW_S = 0.5
connect(2)
config = settings(Path(sys.argv[1]), workers=1, cpus_per_worker=50, stall_s=4)
start(lambda: run_job("train", lambda: run.train(config, PointsStage()).steps, interrupted=""))
"""


def test_workers_without_room_are_named(tmp_path: Path) -> None:
    """Ray Train would wait for ever, and say nothing.

    It still waits when its cluster ends, after which Ray crashes now and then; so not in this process.
    """
    done = subprocess.run([sys.executable, "-c", WAITS, str(tmp_path)], check=False, stderr=subprocess.PIPE, text=True)
    wanted = "1 workers, 50 CPUs and 0 GPUs each: the cluster has 2 CPUs"
    assert done.returncode == 1
    assert f"waiting for {wanted}" in done.stderr
    assert f"train: error: no room for {wanted}" in done.stderr


@pytest.mark.nightly
def test_a_training_whose_driver_was_killed_goes_on(alone: Path, tmp_path: Path) -> None:
    """Killed in step 6, with a checkpoint half written and the metrics ahead of the last whole one."""
    output = tmp_path / "output"
    code = (
        "from pathlib import Path; from pipelines.training.run import train; "
        "from tests.pipelines.training.points import PointsStage, settings; "
        f"stage = PointsStage(hold=5, marker=Path({str(tmp_path / 'never')!r})); "
        f"train(settings(Path({str(output)!r}), validate_every=4, keep_checkpoints=1), stage)"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        metrics = output / "metrics.jsonl"
        wait_until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= 3)
        wait_until(lambda: TrainingOutput.open(str(output)).checkpoints() == [3])
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    half = output / "checkpoints/step-00000005"
    half.mkdir()
    (half / "state.json").write_text('{"step": 5, "files": {"optimizer.pt": 7}}')
    (half / "optimizer.pt").write_bytes(b"123456")
    (output / "checkpoints/checkpoint_manager_snapshot.json").write_text('{"cut o')
    metrics.write_text((alone / "metrics.jsonl").read_text().replace('"step"', '"from": "before", "step"'))

    summary = train(settings(output, validate_every=4, keep_checkpoints=1, workers=1), PointsStage())
    assert (summary.first_step, summary.restarts) == (3, 0)
    assert curve(output) == curve(alone)
    assert TrainingOutput.open(str(output)).checkpoints() == [8]
    assert not half.exists()


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_ray_that_dies_ends_a_training_with_its_name(name: str, tmp_path: Path) -> None:
    output = tmp_path / "output"
    code = (
        "from pathlib import Path; from jobs.command import run_job; from pipelines.training.run import train; "
        "from tests.pipelines.training.points import PointsStage, settings; "
        f"stage = PointsStage(hold=5, marker=Path({str(tmp_path / 'never')!r})); "
        f"run_job('train', lambda: train(settings(Path({str(output)!r})), stage).steps, interrupted='')"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert driver.stderr
    wait_until(lambda: output.exists() and TrainingOutput.open(str(output)).checkpoints() == [3])
    for process in psutil.Process(driver.pid).children(recursive=True):
        if process.name() == name:
            process.kill()
    text = f"train: error: Ray died here ({name}, exit code -9); what is committed is kept, run it again\n"
    assert text in iter(driver.stderr.readline, "")  # after what Ray itself prints
    driver.kill()  # otherwise Ray waits for its dead server
    driver.communicate()
    assert json.loads((output / "lease.json").read_text())["released"]
