"""Passes of the labelling pipeline in which processes die; `test_run.py` tests the tables of undisturbed ones."""

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from ray.exceptions import RayTaskError

from openvis_model.options import AssociationConfig, VideoTrackerConfig
from pipelines.archive.tables import Results
from pipelines.cluster.ray_data import check_restarts
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.decode_operator import Decode
from pipelines.labelling.passes import Passes
from pipelines.labelling.progress import Progress
from pipelines.labelling.rows import BatchRow, LabelledRow, SegmentRow
from pipelines.labelling.run import LabelSummary, label_videos
from pipelines.labelling.video_writer import VideoWriter, VideoWriters
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from pipelines.storage.files import Storage
from pipelines.storage.lease import Lease
from pipelines.video.isolation import isolated
from pipelines.video.plan import VideoError
from tests.pipelines.labelling.bad_decoders import hang
from tests.pipelines.labelling.discs import DiscModel

pytestmark = pytest.mark.usefixtures("cluster", "disc_model")

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
    """Returns all rows, sorted, without durations."""
    tables = {}
    for name, keys in (
        ("videos", ["video_id"]),
        ("tracks", ["video_id", "track_id"]),
        ("masks", ["video_id", "track_id", "frame"]),
    ):
        table = Results(Storage(str(output))).read(name).sort_by([(key, "ascending") for key in keys])
        tables[name] = table.drop_columns([column for column in TIMES if column in table.column_names]).to_pylist()
    return tables


@pytest.fixture(scope="module")
def undisturbed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    output = tmp_path_factory.mktemp("undisturbed")
    summary: LabelSummary = label(archive, output)
    assert (summary.ok, summary.failures) == (6, {})
    return tables(output)


class DeadlyWriter(VideoWriter):
    """Kills its process when the archive's third video begins to be written."""

    def add(self, batch: LabelledRow) -> str | None:
        if self.uri.endswith("2.mp4") and not batch.error:
            os._exit(1)
        return super().add(batch)


class DeadlyWriters(VideoWriters):
    def new(self, video_id: str, uri: str) -> VideoWriter:
        return DeadlyWriter(video_id, uri, self.tracker, self.fingerprints)


@pytest.mark.nightly
def test_a_video_that_kills_its_process_is_given_up(
    archive: Path, undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.labelling.run.VideoWriters", DeadlyWriters)
    monkeypatch.setattr("pipelines.labelling.pipeline.RESTARTS", 1)
    summary = label(archive, tmp_path, max_attempts=1)
    (video,) = [row for row in undisturbed["videos"] if row["uri"].endswith("2.mp4")]
    assert summary.ok == 5
    ((name, reason),) = summary.failures.items()
    assert name == video["video_id"]
    assert reason.startswith("given up, lost once: ")
    labelled = tables(tmp_path)
    assert labelled["masks"] == [row for row in undisturbed["masks"] if row["video_id"] != name]
    (failed,) = [row for row in labelled["videos"] if row["status"] == "failed"]
    assert (failed["video_id"], failed["error"]) == (name, reason)
    again = label(archive, tmp_path)
    assert (again.ok, again.skipped, again.failures) == (0, 6, {name: reason})


class Unanswering(VideoWriters):
    """Kills its process once, between a commit and its answer."""

    def commit(self, *, due: bool = False) -> None:
        super().commit(due=due)
        died = Path(self.parts.storage.root) / "died"
        if Results(self.parts.storage).parts() and not died.exists():
            died.touch()
            os._exit(1)


@pytest.mark.nightly
def test_a_video_that_is_committed_twice_counts_once(
    archive: Path, undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.labelling.run.VideoWriters", Unanswering)
    summary = label(archive, tmp_path)
    assert (summary.ok, summary.failures) == (6, {})
    assert summary.tracks == len(undisturbed["tracks"])
    assert tables(tmp_path) == undisturbed
    (report,) = (tmp_path / "runs").iterdir()
    assert json.loads(report.read_text())["ok"] == 6


class Hanging(Decode):
    """Hangs with the archive's second video."""

    def batches(self, row: SegmentRow) -> Iterator[BatchRow]:
        if not row.uri.endswith("1.mp4"):
            yield from super().batches(row)
            return
        try:
            with isolated(self.limits) as process:
                yield from process.run(hang)
        except VideoError as error:
            yield row.to(BatchRow, error=str(error))


@pytest.mark.slow
def test_a_decoder_that_hangs_fails_alone(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.labelling.pipeline.Decode", Hanging)
    summary = label(archive, tmp_path, decoder_silence_s=10.0)
    assert (summary.ok, list(summary.failures.values())) == (5, ["its decoder stood still for 10 s"])


@pytest.mark.slow
def test_a_run_without_progress_ends(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lease, "check_holder", lambda lease, patience_s: None)  # it is not renewed so often
    with pytest.raises(RuntimeError, match=r"no progress for 0.2 s; the cluster has [\d.]+ of 5 CPUs and 1 of 1 GPUs"):
        label(archive, tmp_path, stall_s=0.2)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("StreamingExecutor")]


def test_the_last_commit_waits_while_the_output_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def error(number: int) -> Exception:
        return RayTaskError("commit", "", OSError(number, "no answer", "s3://bucket")).as_instanceof_cause()

    held: list[float] = []
    passes = Passes.__new__(Passes)  # without Ray
    passes.config = LabelConfig(input="in", output="out", vocabulary="names", stall_s=60.0)
    monkeypatch.setattr(passes, "lease", SimpleNamespace(check_holder=held.append), raising=False)
    monkeypatch.setattr("pipelines.storage.outage.time.sleep", lambda seconds: None)
    answers = [error(errno.EHOSTUNREACH), error(errno.EHOSTUNREACH), None, error(errno.ENOSPC)]

    def commit(trackers: list[Any]) -> None:
        if answer := answers.pop(0):
            raise answer

    monkeypatch.setattr(passes, "_commit", commit)
    assert passes._commit_all([]) is None
    assert held == [60.0, 60.0, 60.0]
    assert isinstance(passes._commit_all([]), OSError)
    assert not answers


class Unloadable(DiscModel):
    """Cannot be loaded, in one way or the other."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        check_restarts()
        raise ValueError("a weight is missing")


class Crashing(DiscModel):
    """Takes its process down while it is loaded."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        check_restarts()
        os._exit(1)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Unloadable, "ValueError: a weight is missing"),
        pytest.param(Crashing, "RuntimeError: the process died while it loaded the model", marks=pytest.mark.nightly),
    ],
)
@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_ends_the_run(
    model: type, why: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one pass: no video is to blame, so none is sought by halving."""
    monkeypatch.setattr("pipelines.labelling.pipeline.Model", model)
    monkeypatch.setattr("pipelines.cluster.ray_data.RESTARTS", 1)
    with pytest.raises(RuntimeError, match=f"^the model cannot be loaded: {why}; committed videos are kept, run it ag"):
        label(archive, tmp_path)
    (report,) = (tmp_path / "runs").iterdir()
    assert len(json.loads(report.read_text())["passes"]) == 1


class Mortal(DiscModel):
    """Dies of the archive's third video."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        check_restarts(1)
        super().__init__(*arguments, **options)

    def __call__(self, batches: pa.Table) -> pa.Table:
        if any(uri.endswith("2.mp4") for uri in batches["uri"].to_pylist()):
            os._exit(1)
        return super().__call__(batches)


@pytest.mark.nightly
@pytest.mark.parametrize("actors", [1, "1-2"])
def test_a_video_that_kills_the_model_is_given_up(
    actors: int | str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although Ray Data itself would restart the model for ever."""
    monkeypatch.setattr("pipelines.labelling.pipeline.Model", Mortal)
    for number in (1, 2):
        shutil.copy(next((archive / "videos").glob(f"*{number}.mp4")), tmp_path)
    summary = label(archive, tmp_path / "labels", input=str(tmp_path), max_attempts=1, model_actors=actors)
    assert summary.ok == 1
    assert list(summary.failures.values()) == [
        "given up, lost once: pipelines.cluster.ray_data.RestartsError: the process that runs the model died 2 times"
    ]
