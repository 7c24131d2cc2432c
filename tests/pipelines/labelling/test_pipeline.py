"""Passes of the labelling pipeline while processes die; what they find is tested in test_label.py."""

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openvis_model.association import AssociationConfig
from openvis_model.video_tracker import VideoTrackerConfig
from pipelines.archive.tables import Results
from pipelines.labelling.batch import LabelledBatch
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.decode_stage import Decode
from pipelines.labelling.progress import Progress
from pipelines.labelling.run import LabelSummary, label_videos
from pipelines.labelling.video_writer import VideoWriter, VideoWriters
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from pipelines.storage.files import Storage
from pipelines.video.isolation import isolated
from pipelines.video.plan import VideoError

pytestmark = pytest.mark.usefixtures("cluster")

TRACKER = VideoTrackerConfig(association=AssociationConfig(min_similarity=-1.0), objectness_threshold=0.55, max_gap=2)
TIMES = ("model_s", "tracker_s")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of 12 frames."""
    return write_split(tmp_path_factory.mktemp("archive"), "novel", 6, 0, SceneConfig(frames=12)).path


def label(archive: Path, output: Path, report: Callable[[Progress, int], None] | None = None, **options: Any) -> Any:
    options = {"input": str(archive / "videos"), "tracker": TRACKER, "batch_size": 4, "part_s": 0.0} | options
    config = LabelConfig(output=str(output), vocabulary=str(archive / "vocabulary.txt"), **options)
    return label_videos(config, report or (lambda done, total: None))


def tables(output: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows, in order, without the times that work took."""
    found = {}
    for name, keys in (
        ("videos", ["video_id"]),
        ("tracks", ["video_id", "track_id"]),
        ("masks", ["video_id", "track_id", "frame"]),
    ):
        table = Results(Storage(str(output))).read(name).sort_by([(key, "ascending") for key in keys])
        found[name] = table.drop_columns([each for each in TIMES if each in table.column_names]).to_pylist()
    return found


@pytest.fixture(scope="module")
def undisturbed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    output = tmp_path_factory.mktemp("undisturbed")
    summary: LabelSummary = label(archive, output)
    assert (summary.ok, summary.failures) == (6, {})
    return tables(output)


class DeadlyWriter(VideoWriter):
    """Takes its process down where the archive's third video begins to be written."""

    def add(self, batch: LabelledBatch) -> str | None:
        if self.uri.endswith("2.mp4") and not batch.error:
            os._exit(1)
        return super().add(batch)


class DeadlyWriters(VideoWriters):
    def new(self, video_id: str, uri: str) -> VideoWriter:
        return DeadlyWriter(video_id, uri, self.tracker, self.fingerprints)


@pytest.mark.slow
def test_a_video_that_takes_its_process_down_is_given_up(
    archive: Path, undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.labelling.run.VideoWriters", DeadlyWriters)
    monkeypatch.setattr("pipelines.labelling.pipeline._RESTARTS", 1)
    summary = label(archive, tmp_path, max_attempts=1)
    (video,) = [row for row in undisturbed["videos"] if row["uri"].endswith("2.mp4")]
    assert summary.ok == 5
    ((name, reason),) = summary.failures.items()
    assert name == video["video_id"]
    assert reason.startswith("given up, lost once: ")
    found = tables(tmp_path)
    assert found["masks"] == [row for row in undisturbed["masks"] if row["video_id"] != name]
    (failed,) = [row for row in found["videos"] if row["status"] == "failed"]
    assert (failed["video_id"], failed["error"]) == (name, reason)
    again = label(archive, tmp_path)
    assert (again.ok, again.skipped, again.failures) == (0, 6, {name: reason})


class Hanging(Decode):
    """Its process waits for ever with the archive's second video."""

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        head: LabelledBatch = pickle.loads(row["head"])
        if not head.uri.endswith("1.mp4"):
            yield from super().__call__(row)
            return
        try:
            with isolated(self.limits) as process:
                yield from process.run(hang)
        except VideoError as error:
            empty = np.zeros((0, 1, 1, 3), np.uint8)
            yield {"head": pickle.dumps(replace(head, error=str(error))), "frames": empty}


def hang() -> Iterator[dict[str, Any]]:
    time.sleep(600)
    yield {}


@pytest.mark.slow
def test_a_decoder_that_hangs_fails_alone(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.labelling.pipeline.Decode", Hanging)
    summary = label(archive, tmp_path, decoder_silence_s=3.0)
    assert (summary.ok, list(summary.failures.values())) == (5, ["its decoder stood still for 3 s"])


def test_a_standstill_ends_the_run(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"no progress for 0.2 s; the cluster has [\d.]+ of 5 CPUs free"):
        label(archive, tmp_path, stall_s=0.2)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("StreamingExecutor")]
