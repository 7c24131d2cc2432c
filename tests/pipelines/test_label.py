import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from pycocotools import mask as coco

from openvis_model.association import AssociationConfig
from openvis_model.video_tracker import VideoTrackerConfig
from pipelines.datasets.shapes_files import write_split
from pipelines.datasets.shapes_scenes import SceneConfig
from pipelines.label import LabelConfig, LabelSummary, label_videos
from pipelines.results import Results
from pipelines.storage import Storage

# The built-in model is untrained: no match is refused.
TRACKER = VideoTrackerConfig(association=AssociationConfig(min_similarity=-1.0), objectness_threshold=0.55, max_gap=2)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=5, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of 24 frames at 96 × 128 pixels."""
    root = tmp_path_factory.mktemp("shapes")
    return write_split(root, "novel", 3, 0, SceneConfig()).path


def label(shapes: Path, output: Path, **options: Any) -> LabelSummary:
    names = shapes / "vocabulary.txt"
    options = {"input": str(shapes / "videos"), "vocabulary": str(names), "tracker": TRACKER} | options
    return label_videos(LabelConfig(output=str(output), **options))


def rows(output: Path, table: str, *keys: str) -> list[dict[str, Any]]:
    return Results(Storage(str(output))).read(table).sort_by([(key, "ascending") for key in keys]).to_pylist()


@pytest.fixture(scope="module")
def labelled(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("labelled")
    summary = label(shapes, output)
    assert (summary.ok, summary.failures, summary.missing, summary.frames) == (3, {}, [], 72)
    return output


def test_the_tables_agree_with_each_other(labelled: Path) -> None:
    videos, tracks = rows(labelled, "videos", "video_id"), rows(labelled, "tracks", "video_id", "track_id")
    masks = rows(labelled, "masks", "video_id", "track_id", "frame")
    assert [(video["status"], video["frames"], video["width"], video["height"]) for video in videos] == [
        ("ok", 24, 128, 96)
    ] * 3
    assert len({video["model_fingerprint"] for video in videos}) == 1
    assert sum(video["tracks"] for video in videos) == len(tracks)
    assert masks
    for mask in masks:
        dense = coco.decode(mask["rle"])
        assert dense.shape == (96, 128)
        assert dense.sum() == mask["area"] > 0
        assert coco.toBbox(mask["rle"]).tolist() == [mask["x"], mask["y"], mask["width"], mask["height"]]
        assert mask["time_s"] == pytest.approx(mask["frame"] / 8)
    for track in tracks:
        seen = [m["frame"] for m in masks if (m["video_id"], m["track_id"]) == (track["video_id"], track["track_id"])]
        assert (min(seen), max(seen), len(seen)) == (track["first_frame"], track["last_frame"], track["frames"])
        assert track["top"][0] == {"category": track["category"], "score": track["score"]}
        assert np.linalg.norm(track["embedding"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 1, "segment_frames": None},
        {"batch_size": 4, "segment_frames": 5, "trackers": 3},
        {"batch_size": 16, "model_actors": 2},
    ],
    ids=str,
)
def test_batching_is_invisible(labelled: Path, shapes: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    label(shapes, tmp_path, **options)
    for table, keys in {"tracks": ("video_id", "track_id"), "masks": ("video_id", "track_id", "frame")}.items():
        expected, found = rows(labelled, table, *keys), rows(tmp_path, table, *keys)
        assert len(found) == len(expected)
        for a, b in zip(expected, found, strict=True):
            assert_close(a, b)


def assert_close(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_close(a[key], b[key])
    elif isinstance(a, list) and a and isinstance(a[0], float):
        np.testing.assert_allclose(a, b, atol=1e-5)
    elif isinstance(a, list):
        for x, y in zip(a, b, strict=True):
            assert_close(x, y)
    else:
        assert b == (pytest.approx(a, abs=1e-5) if isinstance(a, float) else a)


def test_what_is_labelled_is_not_labelled_again(labelled: Path, shapes: Path, tmp_path: Path) -> None:
    output = tmp_path / "copy"
    shutil.copytree(labelled, output)
    before = {file: file.stat().st_mtime_ns for file in output.rglob("*.parquet")}
    summary = label(shapes, output)
    assert (summary.ok, summary.skipped, summary.frames) == (0, 3, 0)
    assert {file: file.stat().st_mtime_ns for file in output.rglob("*.parquet")} == before
    with pytest.raises(ValueError, match="another config; choose another output, or --overwrite"):
        label(shapes, output, stride=4)
    summary = label(shapes, output, stride=4, overwrite=True)
    assert (summary.ok, summary.frames) == (3, 18)
    assert {video["frames"] for video in rows(output, "videos", "video_id")} == {6}


def test_a_failure_of_one_video_never_stops_the_others(shapes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    whole = sorted((shapes / "videos").iterdir())[0]
    shutil.copy(whole, folder / "whole.mp4")
    (folder / "junk.mp4").write_bytes(b"no video at all" * 100)
    (folder / "empty.mkv").write_bytes(b"")
    data = whole.read_bytes()
    (folder / "cut.mp4").write_bytes(data[: len(data) // 2])
    summary = label(shapes, tmp_path / "out", input=str(folder))
    assert summary.ok == 2
    assert sorted(video_id.split("-")[0] for video_id in summary.failures) == ["empty", "junk"]
    assert all(reason for reason in summary.failures.values())
    by_name = {Path(video["uri"]).name: video for video in rows(tmp_path / "out", "videos", "video_id")}
    assert by_name["whole.mp4"]["error"] is None
    assert 0 < by_name["cut.mp4"]["frames"] < by_name["cut.mp4"]["expected_frames"]
    assert "could not be decoded" in by_name["cut.mp4"]["error"]
    assert by_name["junk.mp4"]["status"] == "failed"


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """SIGKILL of the driver half-way; the next run keeps what was committed and does the rest, once."""
    split = write_split(tmp_path, "valid", 12, 0, SceneConfig(frames=16)).path
    output = tmp_path / "labels"
    command = [sys.executable, "-m", "jobs.label", "--input", split / "videos", "--output", output]
    command += ["--vocabulary", split / "vocabulary.txt"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    results = Results(Storage(str(output)))
    deadline = time.monotonic() + 120
    while len(results.committed_parts()) < 3:
        assert driver.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    kept = {file: file.stat().st_mtime_ns for file in (output / "videos").iterdir()}
    assert 3 <= len(kept) < 12

    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "12 videos" in again.stdout
    assert "were already" in again.stdout
    assert all(file.stat().st_mtime_ns == changed for file, changed in kept.items())
    videos = rows(output, "videos", "video_id")
    assert len(videos) == len({video["video_id"] for video in videos}) == 12
    assert {video["frames"] for video in videos} == {16}
    masks = results.read("masks").select(["video_id", "track_id", "frame"])
    assert masks.group_by(masks.column_names).aggregate([]).num_rows == masks.num_rows
    leftovers = [path.name for path in output.rglob("*") if path.is_file() and path.name.startswith(".")]
    assert results.remove_leftovers() == leftovers == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input": "/absent"}, "absent"),
        ({"vocabulary": "/absent.txt"}, "absent.txt"),
        ({"checkpoint": "/absent"}, "not a checkpoint folder"),
        ({"output": "/proc/no"}, "output: cannot write"),
        ({"fps": 5.0, "stride": 2}, "stride"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"objectness_floor": 0.9}, "objectness_floor.*0.9"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_anything_starts(
    shapes: Path, tmp_path: Path, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.label._run", lambda *_: pytest.fail("started"))
    with pytest.raises(ValueError, match=message):
        label(shapes, **{"output": tmp_path} | options)


def test_words_that_the_model_does_not_know_are_named(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("dog\n")
    with pytest.raises(ValueError, match="does not know 'dog'"):
        label(shapes, tmp_path / "out", vocabulary=str(tmp_path / "names.txt"))
