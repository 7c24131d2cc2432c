"""Model actors whose number is a range, in real processes: how many there are while a run goes on."""

from collections.abc import Iterator
from functools import partial
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
from tests.pipelines.labelling.pools import model_actors, wait_for_pool, wait_until_alone
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of 12 frames."""
    return write_split(tmp_path_factory.mktemp("archive"), "novel", 8, 0, SceneConfig(frames=12)).path


def config(archive: Path, output: Path, **options: Any) -> LabelConfig:
    vocabulary = str(archive / "vocabulary.txt")
    return LabelConfig(input=str(archive / "videos"), output=str(output), vocabulary=vocabulary, **options)


@pytest.mark.nightly
def test_a_pool_grows_with_its_work_and_shrinks_without(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last batch of the last video takes until its actor is alone."""
    seen = tmp_path / "seen"

    class Patient(DiscModel):
        def __call__(self, batches: pa.Table) -> pa.Table:
            wait_for_pool(seen, 3)
            if batches["uri"][0].as_py().endswith("7.mp4") and batches["last_batch"][0].as_py():
                wait_until_alone(seen)
            return super().__call__(batches)

    monkeypatch.setattr("pipelines.labelling.pipeline.ROW_BYTES", 1)  # each batch is a task
    monkeypatch.setattr("pipelines.labelling.pipeline.Model", Patient)
    with model_actors() as sizes:
        summary = label_videos(config(archive, tmp_path / "labels", model_actors="1-3", batch_size=2))
    assert (summary.ok, summary.failures, summary.frames) == (8, {}, 96)
    assert 1 in sizes[: sizes.index(3)], "it begins with one"
    assert 1 in sizes[sizes.index(3) :], "one is left for the last batch"


class Pausing(Decode):
    """Stops in the middle of the last video, until all models but one are gone."""

    def __init__(self, seen: Path, *options: Any) -> None:
        super().__init__(*options)
        self.seen = seen

    def batches(self, row: SegmentRow) -> Iterator[BatchRow]:
        for at, batch in enumerate(super().batches(row)):
            if row.uri.endswith("7.mp4") and at == 1:
                wait_until(lambda: self.seen.exists() and len(list(self.seen.iterdir())) >= 3)
                wait_until_alone(self.seen)
            yield batch


@pytest.mark.nightly
def test_a_pool_shrinks_while_it_waits_for_work(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"

    class Growing(DiscModel):
        def __call__(self, batches: pa.Table) -> pa.Table:
            wait_for_pool(seen, 3)
            return super().__call__(batches)

    monkeypatch.setattr("pipelines.labelling.pipeline.ROW_BYTES", 1)
    monkeypatch.setattr("pipelines.labelling.pipeline.Model", Growing)
    monkeypatch.setattr("pipelines.labelling.pipeline.Decode", partial(Pausing, seen))
    with model_actors() as sizes:
        summary = label_videos(config(archive, tmp_path / "labels", model_actors="1-3", batch_size=2))
    assert (summary.ok, summary.failures) == (8, {})
    assert sizes[sizes.index(3) :][-2:] == [1, 0]
