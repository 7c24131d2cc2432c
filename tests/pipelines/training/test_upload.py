"""Checkpoints that are stored beside a training, of one worker without Ray."""

import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.storage.files import Storage
from pipelines.training.output import CHECKPOINTS, TrainingOutput
from pipelines.training.progress import Monitor
from pipelines.training.share import Share
from pipelines.training.upload import CheckpointUpload
from pipelines.training.worker import Job, work
from tests.pipelines.training.alone import Handle, curve, no_ray, train_alone
from tests.pipelines.training.points import PointsStage, Sample, settings


class Slowly:
    """Storage that stores a checkpoint only once the training has gone on, and counts those on their way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gone_on = threading.Event()
        self.running = self.most = 0
        put_folder = Storage.put_folder

        def put(storage: Storage, folder: Path, path: str) -> None:
            if path.startswith(CHECKPOINTS):
                self.running += 1
                self.most = max(self.most, self.running)
                assert self.gone_on.wait(30)
                self.running -= 1
            put_folder(storage, folder, path)

        monkeypatch.setattr(Storage, "put_folder", put)


class Telling(PointsStage):
    """Tells when the fourth batch is made, so while the checkpoint of step 2 is on its way."""

    gone_on: threading.Event

    def batches(self, share: Share) -> Iterator[list[Sample]]:
        for step, batch in enumerate(super().batches(share)):
            if step == 3:
                self.gone_on.set()
            yield batch


def test_training_goes_on_while_a_checkpoint_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the checkpoints of an undisturbed training, one on its way at a time."""
    train_alone(settings(tmp_path / "undisturbed"), PointsStage())
    slowly, stage = Slowly(monkeypatch), Telling()
    stage.gone_on = slowly.gone_on
    train_alone(settings(tmp_path / "output", checkpoint_every=2, keep_checkpoints=9), stage)
    assert slowly.most == 1
    assert TrainingOutput.open(str(tmp_path / "output")).intact() == [2, 4, 6, 7, 8]  # 7: before the validation
    assert curve(tmp_path / "output") == curve(tmp_path / "undisturbed")


def test_a_checkpoint_that_cannot_be_stored_is_told_and_the_last_whole_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_alone(settings(tmp_path / "undisturbed"), PointsStage())
    config, put_folder = settings(tmp_path / "output", checkpoint_every=2), Storage.put_folder

    def put(storage: Storage, folder: Path, path: str) -> None:
        if path.endswith("04"):
            raise OSError(errno.ENOSPC, "the disk is full")
        put_folder(storage, folder, path)

    output = TrainingOutput.open(config.output)
    output.begin({**config.identity(), "stage": "points"})
    job = Job(config=config, stage=PointsStage(), output=output, monitor=Handle(Monitor()))
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "put_folder", put)
        with no_ray(), pytest.raises(OSError, match="the disk is full"):
            work(job)
    assert output.intact() == [2]
    train_alone(config, PointsStage())
    assert curve(tmp_path / "output") == curve(tmp_path / "undisturbed")


def test_an_error_in_training_does_not_lose_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowly = Slowly(monkeypatch)
    threading.Timer(0.5, slowly.gone_on.set).start()
    config = settings(tmp_path / "output", checkpoint_every=2)
    output = TrainingOutput.open(config.output)
    with no_ray(), pytest.raises(FloatingPointError, match="step 3"):
        work(Job(config=config, stage=PointsStage(broken=2), output=output, monitor=Handle(Monitor())))
    assert output.intact() == [2]


def test_what_could_not_be_written_is_not_stored(tmp_path: Path) -> None:
    output = TrainingOutput.open(str(tmp_path))
    upload = CheckpointUpload(output, 1)

    def write(folder: Path) -> Any:
        raise OSError(errno.ENOSPC, str(folder))

    with pytest.raises(OSError, match="openvis-") as error:
        upload.begin(1, write)
    upload.finish()
    upload.close()
    assert not Path(str(error.value.strerror)).exists()
    assert output.checkpoints() == []
