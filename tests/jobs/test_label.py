import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.label import main, print_summary
from jobs.progress import LabelProgress
from pipelines.labelling.progress import Progress
from pipelines.labelling.run import LabelSummary
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from tests.started_cluster import started_cluster


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--inptu", "x", "--output", "y", "--vocabulary", "z"], "inptu: no such option; did you mean input?"),
        (["--input", "x", "--output", "y"], "vocabulary"),
        (["--input", "x", "--output", "y", "--vocabulary", "z", "--batch_size", "many"], "batch_size"),
    ],
)
def test_unknown_and_missing_options_are_named(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


def test_gpus_that_are_not_there_are_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    (tmp_path / "names.txt").write_text("red striped star\n")
    (tmp_path / "a.mp4").touch()
    options = ["--input", str(tmp_path), "--output", str(tmp_path / "out"), "--vocabulary", str(tmp_path / "names.txt")]
    assert main([*options, "--model_gpus", "64"]) == 2
    assert "1 model_actors need 64 GPUs, this machine has" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = tmp_path / "names.txt"
    names.write_text("red striped star\n")
    assert main(["--input", str(tmp_path / "absent"), "--output", str(tmp_path), "--vocabulary", str(names)]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("label: error: ")
    assert "absent" in error


def test_a_storage_that_breaks_off_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*_: object) -> LabelSummary:
        raise OSError(5, "S3 answers 500", "s3://bucket/a")

    monkeypatch.setattr("pipelines.labelling.run.label_videos", break_off)
    assert main(["--input", ".", "--output", "y", "--vocabulary", __file__]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "label: error: s3://bucket/a: S3 answers 500"


def test_a_config_file_gives_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "label.yaml"
    config.write_text(f"input: {tmp_path}/absent\noutput: {tmp_path}/out\nvocabulary: v.txt\ntracker:\n  max_gap: -3\n")
    assert main(["--config", str(config)]) == 2
    assert "max_gap: expected a number of frames, 0 or more, got -3" in capsys.readouterr().err


def test_progress_is_log_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    line = LabelProgress()
    line(Progress(frames=5), 2)
    assert capsys.readouterr().err == ""  # not yet time for a line
    line(Progress(ok=1, failed=1, frames=48, tracks=7), 2)
    printed = capsys.readouterr().err
    assert printed.startswith("2/2 videos, 1 failed, 48 frames")
    line(Progress(ok=1, failed=1, frames=48, tracks=7), 2)
    assert capsys.readouterr().err == ""  # said already
    assert printed.endswith("\n")


def test_the_summary_names_failures(capsys: pytest.CaptureFixture[str]) -> None:
    summary = LabelSummary(videos=4, skipped=1, ok=1, failures={"a-1": "empty file"}, frames=24, tracks=3, seconds=2.0)
    print_summary(summary, "labels")
    printed = capsys.readouterr().out
    assert "1 of 4 videos labelled, 1 already done: 24 frames, 3 tracks in 2 s (12.0 frames/s) → labels" in printed
    assert "failed: a-1: empty file" in printed
    many = {f"a-{number}": "empty file" for number in range(130)}
    print_summary(replace(summary, failures=many), "labels")
    *_, last, rest = capsys.readouterr().out.splitlines()
    assert last == "  failed: a-99: empty file"
    assert rest == "  and 30 more: the rows of labels/videos whose status is failed"


def test_such_a_share_may_fail(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    failures = {"a-1": "empty file", "a-2": "no video stream"}
    summary = LabelSummary(videos=4, skipped=1, ok=1, failures=failures, frames=24, tracks=3, seconds=2.0)
    monkeypatch.setattr("pipelines.labelling.run.label_videos", lambda *_: summary)
    options = ["--input", ".", "--output", "y", "--vocabulary", __file__]
    for allowed, code in (("0", 1), ("0.49", 1), ("0.5", 0)):
        assert main([*options, "--max_failed", allowed]) == code
        assert "failed: a-2: no video stream" in capsys.readouterr().out


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_cluster_that_dies_is_one_line_and_a_report(name: str, tmp_path: Path) -> None:
    split, output = write_split(tmp_path, "valid", 1, 0, SceneConfig(frames=24)).path, tmp_path / "out"
    (video,) = (split / "videos").iterdir()
    for number in range(60):  # a run that lasts
        shutil.copy(video, video.with_stem(f"copy_{number}"))
    options = ["--input", str(split / "videos"), "--vocabulary", str(split / "vocabulary.txt"), "--part_s", "0"]
    command = [sys.executable, "-m", "jobs.label", *options, "--output", str(output)]
    with started_cluster() as cluster:
        environment = cluster.environment | {"RAY_ADDRESS": cluster.address}
        run = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        while not list(output.glob("videos/*.parquet")):
            assert run.poll() is None, run.communicate()
            time.sleep(0.2)
        cluster.kill(name)
        _, printed = run.communicate(timeout=180)
    errors = [line for line in printed.splitlines() if line.startswith("label: error: ")]
    assert len(errors) == 1, printed
    assert run.returncode == 1
    (report,) = [json.loads(file.read_text()) for file in output.glob("runs/*.json")]
    assert report["outcome"] == "broken"
    assert errors == [f"label: error: {report['error']}"]
    assert report["ok"] == sum(pq.read_metadata(part).num_rows for part in output.glob("videos/*.parquet")) > 0
