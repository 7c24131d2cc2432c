"""Model actors whose number is a range, in real processes: how many there are while a run goes on."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.labelling.config import LabelConfig
from pipelines.labelling.decode_operator import Decode
from pipelines.labelling.rows import BatchRow, SegmentRow
from pipelines.labelling.run import label_videos
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from tests.pipelines.labelling.discs import DiscModel
from tests.pipelines.labelling.pool_sizes import model_actors

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of 12 frames."""
    return write_split(tmp_path_factory.mktemp("archive"), "novel", 8, 0, SceneConfig(frames=12)).path


def config(archive: Path, output: Path, **options: Any) -> LabelConfig:
    vocabulary = str(archive / "vocabulary.txt")
    return LabelConfig(input=str(archive / "videos"), output=str(output), vocabulary=vocabulary, **options)


class Busy(DiscModel):
    """Takes its time; longest for the last batch of the last video, with which it is alone."""

    def __call__(self, batches: pa.Table) -> pa.Table:
        last = batches["uri"][0].as_py().endswith("7.mp4") and batches["last_batch"][0].as_py()
        time.sleep(5 if last else 0.4)
        return super().__call__(batches)


def test_a_pool_grows_with_its_work_and_shrinks_without(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.labelling.pipeline.ROW_BYTES", 1)  # each batch is a task
    monkeypatch.setattr("pipelines.labelling.pipeline.Model", Busy)
    with model_actors() as sizes:
        summary = label_videos(config(archive, tmp_path, model_actors="1-3", batch_size=2))
    assert (summary.ok, summary.failures, summary.frames) == (8, {}, 96)
    assert 1 in sizes[: sizes.index(3)], "it begins with one"
    assert 1 in sizes[sizes.index(3) :], "one is left for the last batch"


class Pausing(Decode):
    """Stops for a while in the middle of the last video."""

    def batches(self, row: SegmentRow) -> Iterator[BatchRow]:
        for at, batch in enumerate(super().batches(row)):
            if row.uri.endswith("7.mp4") and at == 1:
                time.sleep(25)
            yield batch


@pytest.mark.slow
def test_a_pool_shrinks_while_it_waits_for_work(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.labelling.pipeline.ROW_BYTES", 1)
    monkeypatch.setattr("pipelines.labelling.pipeline.Model", Busy)
    monkeypatch.setattr("pipelines.labelling.pipeline.Decode", Pausing)
    with model_actors() as sizes:
        summary = label_videos(config(archive, tmp_path, model_actors="1-3", batch_size=2))
    assert (summary.ok, summary.failures) == (8, {})
    assert sizes[sizes.index(3) :][-2:] == [1, 0]
