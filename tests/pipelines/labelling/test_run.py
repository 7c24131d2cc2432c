import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pycocotools import mask as coco

from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results
from pipelines.labelling.decode_operator import Decode, Plan
from pipelines.labelling.rows import BatchRow, SegmentRow, unpack_load
from pipelines.labelling.run import LabelSummary
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from pipelines.storage.files import Storage
from pipelines.storage.lease import hold_lease
from pipelines.video.download_cache import DownloadCache
from pipelines.video.options import Limits, Sampling
from tests.pipelines.archive.archives import CUT, STRIDE, label_archive
from tests.pipelines.archive.delta import read_table

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def labelled(archive: Path) -> Path:
    return archive / "some"


def label(archive: Path, output: Path, **options: Any) -> LabelSummary:
    return label_archive(archive, output, "some.txt", **options)


def rows(output: Path, table: str, *keys: str) -> list[dict[str, Any]]:
    return Results(Storage(str(output))).read(table).sort_by([(key, "ascending") for key in keys]).to_pylist()


def test_the_tables_agree_with_each_other(labelled: Path) -> None:
    videos, tracks = rows(labelled, "videos", "video_id"), rows(labelled, "tracks", "video_id", "track_id")
    masks = rows(labelled, "masks", "video_id", "track_id", "frame")
    assert sorted((video["status"], video["frames"], video["width"], video["height"]) for video in videos) == [
        ("ok", 12, 128, 96),
        ("ok", 12, 226, 150),
        *[("ok", 20, 128, 96)] * 3,
    ]
    shots = {Path(video["uri"]).name: video["shots"] for video in videos}
    assert [(shot["first_frame"], shot["last_frame"]) for shot in shots["2.mp4"]] == [(0, CUT - STRIDE), (CUT, 38)]
    assert [(shot["start_s"], shot["end_s"]) for shot in shots["2.mp4"]] == [(0, 2.25), (2.5, 4.75)]
    assert [len(shot) for name, shot in shots.items() if name != "2.mp4"] == [1] * 4
    (cut,) = (video["video_id"] for video in videos if video["uri"].endswith("2.mp4"))
    spans = [(track["first_frame"], track["last_frame"]) for track in tracks if track["video_id"] == cut]
    assert {first >= CUT for first, _ in spans} == {True, False}
    assert all(last < CUT or first >= CUT for first, last in spans)
    sizes = {video["video_id"]: (video["height"], video["width"]) for video in videos}
    assert len({video["model_fingerprint"] for video in videos}) == 1
    assert sum(video["tracks"] for video in videos) == len(tracks)
    assert masks
    for mask in masks:
        dense = coco.decode(mask["rle"])
        assert dense.shape == sizes[mask["video_id"]]
        assert dense.sum() == mask["area"] > 0
        assert coco.toBbox(mask["rle"]).tolist() == [mask["x"], mask["y"], mask["width"], mask["height"]]
        assert mask["time_s"] == pytest.approx(mask["frame"] / 8)
    for track in tracks:
        seen = [m["frame"] for m in masks if (m["video_id"], m["track_id"]) == (track["video_id"], track["track_id"])]
        assert (min(seen), max(seen), len(seen)) == (track["first_frame"], track["last_frame"], track["frames"])
        assert track["top"][0] == {"category": track["category"], "score": track["score"]}
        assert np.linalg.norm(track["embedding"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("table", "keys"), [("videos", 1), ("tracks", 2), ("masks", 3)])
def test_other_engines_read_the_same_rows(table: str, keys: int, labelled: Path) -> None:
    order = ("video_id", "track_id", "frame")[:keys]
    others = read_table(str(labelled), table).sort_by([(key, "ascending") for key in order])
    assert others.to_pylist() == rows(labelled, table, *order)


def test_a_run_leaves_a_report(labelled: Path) -> None:
    (file,) = (labelled / "runs").iterdir()
    report = json.loads(file.read_text())
    assert file.stem == report["id"]
    assert (report["outcome"], report["error"], report["passes"], report["failures"]) == ("done", None, [None], {})
    assert (report["videos"], report["wanted"], report["ok"], report["frames"]) == (5, 5, 5, 84)
    assert report["config"]["stride"] == 2
    assert report["model_fingerprint"] == rows(labelled, "videos", "video_id")[0]["model_fingerprint"]
    assert report["versions"].keys() >= {"openvis", "ray", "torch", "python"}


def test_batching_is_invisible(archive: Path) -> None:
    """Sums of other batch sizes and thread counts differ in their last bits, which may turn a pixel that is on an edge
    to the last bit; nothing else changes but names, of which the other run had more."""
    tracks, masks = ("video_id", "track_id"), ("video_id", "track_id", "frame")
    one, other = archive / "some", archive / "all"
    named = ("category", "score", "top", "unknown")
    for a, b in zip(rows(one, "tracks", *tracks), rows(other, "tracks", *tracks), strict=True):
        assert_close(*({k: v for k, v in row.items() if k not in named} for row in (a, b)))
    turned = 0
    for a, b in zip(rows(one, "masks", *masks), rows(other, "masks", *masks), strict=True):
        if a["rle"] != b["rle"]:
            turned += 1
            assert (coco.decode(a["rle"]) != coco.decode(b["rle"])).sum() <= 2
        on_edge = ("rle", "area", "x", "y", "width", "height")
        assert_close(*({k: v for k, v in row.items() if k not in on_edge} for row in (a, b)))
    assert turned <= 3


def test_the_videos_really_are_cut(archive: Path) -> None:
    """The videos of the test above really are cut, or it would compare the same with the same."""
    counts = []
    for limit in (8, None):
        video = pa.table({"video_id": ["v"], "uri": [str(archive / "videos" / "0.mp4")], "version": [""]})
        loads = Plan(Sampling(stride=2), limit, DownloadCache(), Limits())(video)
        counts.append([len(row.kept_frame) for load in loads for row in unpack_load(load)])
    assert counts == [[8, 8, 4], [20]]


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


def test_what_is_labelled_is_not_labelled_again(labelled: Path, archive: Path, tmp_path: Path) -> None:
    output = tmp_path / "copy"
    shutil.copytree(labelled, output)
    before = {file: file.stat().st_mtime_ns for file in output.rglob("*.parquet")}
    summary = label(archive, output)
    assert (summary.ok, summary.skipped, summary.frames) == (0, 5, 0)
    assert {file: file.stat().st_mtime_ns for file in output.rglob("*.parquet")} == before
    with pytest.raises(ValueError, match="another config; choose another output, or --overwrite"):
        label(archive, output, stride=4)


class Broken(Decode):
    def batches(self, row: SegmentRow) -> Iterator[BatchRow]:
        if row.uri.endswith("1.mp4"):
            raise ValueError("unforeseen")
        return super().batches(row)


@pytest.mark.nightly
@pytest.mark.usefixtures("disc_model")
def test_overwriting_resumes_where_it_broke_off(
    labelled: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a run that labels its videos in several chunks; an error of the code is not bad input."""
    output = tmp_path / "copy"
    shutil.copytree(labelled, output)
    options = {"input": str(archive / "videos" / "[012].mp4"), "stride": 8, "overwrite": True}
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.labelling.run.CHUNK", 1)
        patch.setattr("pipelines.labelling.pipeline.Decode", Broken)
        with pytest.raises(
            RuntimeError, match="the run broke off, ValueError: unforeseen; committed videos are kept, run it again"
        ):
            label(archive, output, **options)
    assert sorted(video["frames"] for video in rows(output, "videos", "video_id")) == [5, 12, 12, 20, 20]
    report = json.loads(max((output / "runs").iterdir()).read_text())
    assert (report["outcome"], report["ok"]) == ("broken", 1)
    assert report["passes"] == [None, report["error"]]
    assert "unforeseen" in report["error"]

    summary = label(archive, output, **options)
    assert (summary.ok, summary.skipped, summary.frames) == (2, 1, 10)
    assert sorted(video["frames"] for video in rows(output, "videos", "video_id")) == [5, 5, 5, 12, 12]
    assert max(mask["frame"] for mask in rows(output, "masks", "frame")) == 32
    results = Results(Storage(str(output)))
    listed = results.listed(results.parts())
    assert sum(videos.num_rows for videos in listed) == 5  # nothing of the replaced videos is left


def test_an_output_that_another_run_writes_to_is_left_alone(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.storage.lease.RENEW_S", 0.5)
    output = tmp_path / "output"
    half = output / "masks/half.parquet"  # of the other run
    half.parent.mkdir(parents=True)
    half.touch()
    with hold_lease(Storage(str(output))), pytest.raises(ValueError, match="output: .* being written by another run"):
        label(archive, output)
    assert half.exists()


@pytest.mark.nightly
@pytest.mark.usefixtures("disc_model")
def test_a_manifest_names_videos(archive: Path, tmp_path: Path) -> None:
    """Failed videos are tried again on request; an id that names another file now is an error."""
    manifest, output = tmp_path / "videos.csv", tmp_path / "out"
    source = {"input": str(manifest), "stride": 16}
    shutil.copy(archive / "videos" / "0.mp4", tmp_path / "a.mp4")
    manifest.write_text("video_id,uri\na,a.mp4\nb,b.mp4\n")
    summary = label(archive, output, **source)
    assert (summary.ok, summary.failures) == (1, {"b": "file not found"})
    shutil.copy(archive / "videos" / "1.mp4", tmp_path / "b.mp4")
    summary = label(archive, output, **source)
    assert (summary.ok, summary.skipped, summary.failures) == (0, 2, {"b": "file not found"})
    summary = label(archive, output, retry_failed=True, **source)
    assert (summary.ok, summary.skipped, summary.failures) == (1, 1, {})
    manifest.write_text("video_id,uri\na,b.mp4\n")
    with pytest.raises(ValueError, match="a.mp4 under the id 'a', which is now that of .*b.mp4; choose another output"):
        label(archive, output, **source)


@pytest.mark.slow
def test_an_interrupted_run_resumes_where_it_stopped(tmp_path: Path) -> None:
    """The driver gets SIGTERM half-way; the next run keeps what was committed and labels the rest, once."""
    split = write_split(tmp_path, "valid", 8, 0, SceneConfig(frames=16)).path
    output = tmp_path / "labels"
    temporary = Path(tempfile.mkdtemp(prefix="ov-"))  # Ray's sockets need a short path
    command = [sys.executable, "-m", "jobs.label", "--input", split / "videos", "--output", output]
    command += ["--vocabulary", split / "vocabulary.txt", "--part_s", "0"]
    environment = os.environ | {"TMPDIR": str(temporary)}
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    results = Results(Storage(str(output)))
    deadline = time.monotonic() + 900
    while len(results.parts()) < 2:
        assert driver.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)
    _, printed = driver.communicate(timeout=900)
    assert driver.returncode == os.EX_TEMPFAIL
    assert printed.splitlines()[-1] == "label: interrupted; committed videos are kept; run it again to resume"
    assert "Traceback" not in printed
    assert not list(temporary.glob("openvis-rows-*"))
    shutil.rmtree(temporary, ignore_errors=True)
    kept = {file: file.stat().st_mtime_ns for file in (output / "videos").glob("*.parquet")}
    assert 2 <= len(kept) < 8

    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert again.returncode == 0, again.stderr
    assert "8 videos" in again.stdout
    assert "already done" in again.stdout
    assert all(file.stat().st_mtime_ns == changed for file, changed in kept.items())
    videos = rows(output, "videos", "video_id")
    assert len(videos) == len({video["video_id"] for video in videos}) == 8
    assert {video["frames"] for video in videos} == {16}
    masks = results.read("masks").select(["video_id", "track_id", "frame"])
    assert masks.group_by(masks.column_names).aggregate([]).num_rows == masks.num_rows
    files = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    parts = {f"{table}/{part}.parquet" for table in SCHEMAS for part in results.parts()}
    assert {file for file in files if not re.search("^runs/|/_delta_log/", file)} == {*parts, "lease.json", ".lock"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input": "/absent"}, "absent"),
        ({"vocabulary": "/absent.txt"}, "absent.txt"),
        ({"checkpoint": "/absent"}, "not a checkpoint folder"),
        ({"output": "/proc/no"}, "output: cannot write"),
        ({"fps": 5.0, "stride": 2}, "stride"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"model_gpus": -1.0}, "model_gpus: expected 0 or more, got -1.0"),
        ({"download_cache_gb": -1.0}, "download_cache_gb: expected 0 or more, got -1.0"),
        ({"objectness_floor": 0.9}, "objectness_floor.*0.9"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_anything_starts(
    archive: Path, tmp_path: Path, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.labelling.run.Passes", lambda *_: pytest.fail("started"))
    with pytest.raises(ValueError, match=message):
        label(archive, **{"output": tmp_path} | options)


def test_words_that_the_model_does_not_know_are_named(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("dog\n")
    with pytest.raises(ValueError, match="does not know 'dog'"):
        label(archive, tmp_path / "out", vocabulary=str(tmp_path / "names.txt"))
