"""Trainings that are told to end, and a real cluster of two machines, of which one is taken away."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from pipelines.training.output import TrainingOutput
from pipelines.training.progress import TrainingProgress
from pipelines.training.run import train
from tests.pipelines.training.alone import curve, train_alone
from tests.pipelines.training.points import PointsStage, settings
from tests.waiting import wait_until

pytestmark = pytest.mark.nightly


def test_an_interrupted_training_stores_a_checkpoint_first(tmp_path: Path) -> None:
    """Although none is due."""
    code = (
        "import atexit; atexit.register(print, 'at the end'); "
        "from pathlib import Path; from jobs.command import start, run_job; "
        "from pipelines.training.run import train; from tests.pipelines.training.points import PointsStage, settings; "
        f"config = settings(Path({str(tmp_path)!r}), steps=3000, checkpoint_every=3000); "
        "start(lambda: run_job('train', lambda: train(config, PointsStage(pause_s=0.1)).steps, interrupted='kept'))"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= 3)
    driver.send_signal(signal.SIGTERM)
    out, printed = driver.communicate(timeout=120)
    assert (driver.returncode, out) == (75, ""), printed  # Ray's own end, among what comes at the end, would make it 1
    stored = re.search(r"interrupted: the checkpoint of step (\d+) is stored", printed)
    assert stored
    assert TrainingOutput.open(str(tmp_path)).intact() == [int(stored[1])]


def test_a_machine_that_is_taken_away_costs_no_step(
    no_cluster: None, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint is stored before it goes, and fewer workers resume there, with the same losses."""
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "5")  # it may wait for the machine that has gone
    config = settings(tmp_path / "output", workers="1-3", steps=40, checkpoint_every=1000)
    train_alone(settings(tmp_path / "alone", steps=40, checkpoint_every=1000), PointsStage())
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    ray.init(address=cluster.address, log_to_driver=False)  # on the only machine so far
    cluster.add_node(num_cpus=1)
    spot = cluster.add_node(num_cpus=2)
    seen: list[TrainingProgress] = []

    def take_away(progress: TrainingProgress) -> None:
        seen.append(progress)
        if progress.step >= 3 and len(cluster.worker_nodes) == 2:
            if not going:
                going.append(time.monotonic())
                in_6_s = int(time.time() * 1000) + 6_000
                gcs = GcsClient(address=cluster.address)
                assert gcs.drain_node(spot.node_id, autoscaler_pb2.DRAIN_NODE_REASON_PREEMPTION, "spot", in_6_s)[0]
            elif time.monotonic() > going[0] + 4:
                cluster.remove_node(spot, allow_graceful=False)

    going: list[float] = []
    try:
        summary = train(config, PointsStage(pause_s=0.3), take_away)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert "is about to be taken away; a checkpoint is stored at once" in caplog.text
    assert (summary.steps, summary.restarts) == (40, 1)
    assert seen[-1].first_step >= 3
    assert sorted({progress.first_step for progress in seen}) == [0, seen[-1].first_step]
    for a, b in zip(curve(tmp_path / "alone"), curve(tmp_path / "output"), strict=True):
        assert b == pytest.approx(a, rel=1e-4)
