"""A training whose output is on S3, with real workers, while S3 does not answer for a while."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from pipelines.storage.files import Storage
from pipelines.training.output import TrainingOutput
from pipelines.training.progress import TrainingProgress
from pipelines.training.run import train
from tests.pipelines.storage.s3_server import Outage
from tests.pipelines.training.points import PointsStage, settings


@pytest.fixture
def cluster(outage: Outage, no_cluster: None) -> None:
    """Ray whose workers find that S3."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)


@pytest.mark.nightly
def test_s3_may_be_away_for_longer_than_a_lease_lasts(
    outage: Outage, cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.storage.lease.RENEW_S", 0.1)
    monkeypatch.setattr("pipelines.storage.lease.EXPIRE_S", 4.0)
    stage = PointsStage(hold=2, marker=tmp_path / "away")

    def report(progress: TrainingProgress) -> None:
        if progress.step == 2 and not outage.stops:
            outage.begin(7.0)
            (tmp_path / "away").touch()  # the next step is followed by a checkpoint

    output = "s3://outage/run"
    summary = train(replace(settings(tmp_path), output=output), stage, report)
    assert (summary.steps, summary.restarts, outage.stops) == (8, 0, 1)
    assert TrainingOutput.open(output).intact() == [7, 8]
    lines = (Storage(output).read_bytes("metrics.jsonl") or b"").splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 9))
