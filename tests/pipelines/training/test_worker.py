"""One worker alone, without Ray; `test_run.py` has the real one."""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.storage.lease import hold_lease
from pipelines.training.config import TrainingConfig
from pipelines.training.output import TrainingOutput
from pipelines.training.progress import Monitor, TrainingProgress
from pipelines.training.share import Share
from pipelines.training.worker import Job, _load_optimizer, work
from tests.pipelines.storage.s3_server import Outage
from tests.pipelines.training.alone import Handle, curve, no_ray
from tests.pipelines.training.points import PointsStage, Sample, settings

TAKEN = '{"id": "another", "host": "elsewhere", "pid": 1, "released": false}'


@pytest.fixture(autouse=True)
def without_ray(tmp_path: Path) -> Iterator[None]:
    TrainingOutput.open(str(tmp_path / "output")).begin({})
    with no_ray():
        yield


class StopError(RuntimeError):
    """A worker's end that Ray Train would answer with a new start."""


class Ending(PointsStage):
    """Ends the worker after a number of batches."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches
        self.closed = False

    def batches(self, share: Share) -> Iterator[list[Sample]]:
        try:
            for batch in super().batches(share):
                if not self.left:
                    raise StopError
                self.left -= 1
                yield batch
        finally:
            self.closed = True


def run(tmp_path: Path, stage: PointsStage, **options: Any) -> Monitor:
    config: TrainingConfig = settings(tmp_path / "output", **{"validate_every": 2} | options)
    output, monitor = TrainingOutput.open(config.output), Monitor()
    work(Job(config=config, stage=stage, output=output, monitor=Handle(monitor)))
    return monitor


@pytest.fixture
def undisturbed(tmp_path: Path, without_ray: None) -> list[dict[str, float]]:
    run(tmp_path, PointsStage())
    whole_curve = curve(tmp_path / "output")
    shutil.rmtree(tmp_path / "output")
    TrainingOutput.open(str(tmp_path / "output")).begin({})
    return whole_curve


@pytest.mark.parametrize("every", [1, 3, 8])
def test_ending_anywhere_changes_nothing(undisturbed: list[dict[str, float]], tmp_path: Path, every: int) -> None:
    """Worker after worker gets some steps further than its last checkpoint and ends."""
    for _ in range(20):
        stage = Ending(every + 1)
        try:
            monitor = run(tmp_path, stage, checkpoint_every=every)
        except StopError:
            assert stage.closed
        else:
            break
    assert curve(tmp_path / "output") == undisturbed
    progress = monitor.progress()
    assert progress is not None
    assert (progress.step, progress.loss) == (8, undisturbed[-1]["loss"])
    assert progress.scores == {"error": undisturbed[-1]["validation/error"]}
    assert progress.seconds > progress.data_seconds > 0


def test_scores_of_before_are_shown(tmp_path: Path) -> None:
    with pytest.raises(StopError):
        run(tmp_path, Ending(4))
    seen: list[TrainingProgress] = []
    monitor = Monitor()
    config = settings(tmp_path / "output")
    output = TrainingOutput.open(config.output)
    handle = Handle(
        SimpleNamespace(
            begin=monitor.begin,
            join=monitor.join,
            failure=monitor.failure,
            update=seen.append,
            fail=monitor.fail,
        )
    )
    work(Job(config=config, stage=PointsStage(), output=output, monitor=handle))
    assert [progress.step for progress in seen] == [4, 5, 6, 7, 8]
    assert seen[0].scores.keys() == {"error"}


def test_the_last_checkpoint_is_that_of_the_end(tmp_path: Path) -> None:
    run(tmp_path, PointsStage(), checkpoint_every=3, keep_checkpoints=1)
    assert TrainingOutput.open(str(tmp_path / "output")).checkpoints() == [8]
    state = json.loads((tmp_path / "output/checkpoints/step-00000008/state.json").read_text())
    assert state["files"].keys() == {"model/network.pt", "optimizer.pt", "metrics.jsonl"}
    assert (state["step"], state["stage"], state["batch_size"]) == (8, "points", 8)


def test_nothing_is_left_of_the_metrics_of_steps_that_will_be_repeated(tmp_path: Path) -> None:
    with pytest.raises(StopError):
        run(tmp_path, Ending(5), validate_every=0)
    assert [line["step"] for line in curve(tmp_path / "output")] == [1, 2, 3, 4, 5]
    with pytest.raises(StopError):
        run(tmp_path, Ending(0), validate_every=0)
    assert [line["step"] for line in curve(tmp_path / "output")] == [1, 2, 3]


def test_what_may_go_away_is_not_told(tmp_path: Path) -> None:
    monitor = Monitor()
    config = settings(tmp_path / "output")
    job = Job(config=config, stage=Ending(2), output=TrainingOutput.open(config.output), monitor=Handle(monitor))
    with pytest.raises(StopError):
        work(job)
    assert monitor.failure() is None


class Slow(PointsStage):
    def batches(self, share: Share) -> Iterator[list[Sample]]:
        for batch in super().batches(share):
            time.sleep(0.1)
            yield batch


def test_waiting_for_data_is_told(tmp_path: Path) -> None:
    run(tmp_path, Slow(), steps=2)
    for line in (tmp_path / "output/metrics.jsonl").read_text().splitlines():
        assert json.loads(line)["seconds"] > json.loads(line)["data_seconds"] >= 0.1


class Short(PointsStage):
    def batches(self, share: Share) -> Iterator[list[Sample]]:
        for step, batch in enumerate(super().batches(share)):
            if step == 3:
                return
            yield batch[: 7 if step == 2 and self.name == "short" else 8]


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        (PointsStage(broken=2), "step 3: loss fit is nan, loss head is nan; lower learning_rate"),
        (PointsStage(bad=(0, 2)), "a.json: video 3, b.mp4: cannot be read"),
        (Short("short"), "step 3: expected 8 samples, got 7"),
        (Short("ended"), "step 4: expected 8 samples, got none"),
    ],
)
def test_what_cannot_go_away_is_told(tmp_path: Path, stage: PointsStage, reason: str) -> None:
    monitor = Monitor()
    config = settings(tmp_path / "output")
    job = Job(config=config, stage=stage, output=TrainingOutput.open(config.output), monitor=Handle(monitor))
    with pytest.raises((ValueError, FloatingPointError)):
        work(job)
    assert str(monitor.failure()).startswith(reason)
    before = (tmp_path / "output/metrics.jsonl").read_bytes()
    work(job)  # as a new start does, which comes of it: it returns
    assert (tmp_path / "output/metrics.jsonl").read_bytes() == before


def test_metrics_are_written_when_a_worker_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.training.log._LOCAL_EVERY_S", 1e9)
    with pytest.raises(StopError):
        run(tmp_path, Ending(2))
    assert [line["step"] for line in curve(tmp_path / "output")] == [1, 2]


@dataclass
class DuringOutage(PointsStage):
    """S3 stops answering while the batch of a step is made."""

    outage: Outage | None = None
    steps: tuple[int, ...] = ()

    def batches(self, share: Share) -> Iterator[list[Sample]]:
        for step, batch in enumerate(super().batches(share), share.first_step):
            if step in self.steps:
                assert self.outage
                self.outage.begin(1.5)
            yield batch


def test_a_checkpoint_waits_while_s3_is_away(
    undisturbed: list[dict[str, float]], tmp_path: Path, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a checkpoint, and at the last one, with a lease that would long have been taken for lost."""
    monkeypatch.setattr("pipelines.storage.lease.RENEW_S", 0.1)
    monkeypatch.setattr("pipelines.storage.lease.EXPIRE_S", 1.0)
    monkeypatch.setattr("pipelines.training.log._REMOTE_EVERY_S", 0.0)  # metrics are due all the time
    opened, monitor = TrainingOutput.open("s3://outage/run"), Monitor()
    config = settings(Path("unused"), validate_every=2)
    with hold_lease(opened.files) as lease:
        output = replace(opened, holder=lease.id, stall_s=60.0)
        stage = DuringOutage(outage=outage, steps=(2, 7))
        work(Job(config=config, stage=stage, output=output, monitor=Handle(monitor)))
        lease.check()
    assert (outage.stops, monitor.starts) == (2, 1)
    assert output.intact()[-1] == 8
    output.files.download_folder(".", tmp_path / "output")
    assert curve(tmp_path / "output") == undisturbed


def test_a_run_that_another_one_followed_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its driver may not know yet."""
    opened, monitor = TrainingOutput.open(str(tmp_path / "output")), Monitor()
    with hold_lease(opened.files) as lease:
        output = replace(opened, holder=lease.id)
        lease_file = tmp_path / "output/lease.json"
        monkeypatch.setattr(TrainingOutput, "keep_last", lambda output, count: lease_file.write_text(TAKEN))
        with pytest.raises(RuntimeError, match="another run took over"):
            work(Job(config=settings(Path("unused")), stage=Ending(6), output=output, monitor=Handle(monitor)))
        with pytest.raises(RuntimeError, match="another run took over"):
            work(Job(config=settings(Path("unused")), stage=PointsStage(), output=output, monitor=Handle(monitor)))
    assert opened.checkpoints() == [3]
    assert len((tmp_path / "output/metrics.jsonl").read_text().splitlines()) < 4


def test_a_checkpoint_is_stored_as_soon_as_it_is_asked_for(tmp_path: Path) -> None:
    monitor, seen = Monitor(), list[int]()
    monitor.notify()
    monitor.store = seen.append  # type: ignore[method-assign]
    config = settings(tmp_path / "output", checkpoint_every=8)
    output = TrainingOutput.open(config.output)
    with pytest.raises(StopError):
        work(Job(config=config, stage=Ending(3), output=output, monitor=Handle(monitor)))
    assert seen == output.checkpoints() == [2]


class Unvalidated(PointsStage):
    """Its worker ends while it validates."""

    def validate(self, objective: Any, rank: int, world_size: int) -> dict[str, float]:
        raise StopError


def test_a_validation_that_does_not_end_costs_one_step(undisturbed: list[dict[str, float]], tmp_path: Path) -> None:
    options = {"checkpoint_every": 8, "keep_checkpoints": 9, "validate_every": 4}
    for _ in range(2):
        with pytest.raises(StopError):
            run(tmp_path, Unvalidated(), **options)
        assert TrainingOutput.open(str(tmp_path / "output")).checkpoints() == [3]
    run(tmp_path, PointsStage(), **options)
    assert TrainingOutput.open(str(tmp_path / "output")).checkpoints() == [3, 7, 8]
    assert [line["loss"] for line in curve(tmp_path / "output")] == [line["loss"] for line in undisturbed]


def test_no_advice_to_run_code_of_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "optimizer.pt").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"optimizer.pt of the last checkpoint is damaged; remove") as error:
        _load_optimizer(tmp_path / "optimizer.pt")
    assert "weights_only" not in str(error.value)
