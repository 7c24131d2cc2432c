"""From an empty cache to labelled videos, with small networks of the architectures that are published."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from jobs import recipes
from jobs.label import main
from pipelines.archive.tables import read_masks, read_tracks, read_videos
from tests import hub
from tests.hub import PROPOSALS, Files
from tests.jobs.in_process import run
from tests.pipelines.video.clips import write_clip


@pytest.fixture
def options(tmp_path: Path, repositories: dict[str, Files], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of a job with the recipe `small`, of one video and two names."""
    recipe = hub.recipe_for_workers(tmp_path, repositories)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/small.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(asdict(recipe)))))
    monkeypatch.setattr(recipes, "_FOLDER", tmp_path / "models")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos/a.mp4", frames=12)
    (tmp_path / "names.txt").write_text("dog\ncat, kitten\n")
    inputs = ["--input", str(tmp_path / "videos"), "--vocabulary", str(tmp_path / "names.txt")]
    return [*inputs, "--model", "small", "--objectness_floor", "0.2", "--batch_size", "4"]


@pytest.mark.slow
def test_one_command_fetches_builds_and_labels(
    cluster: None,
    options: list[str],
    repositories: dict[str, Files],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second time without a network, the hub's cache, or building anything."""
    with hub.served(repositories) as (endpoint, _):
        hub.use(monkeypatch, tmp_path / "hub", endpoint)
        first = run(main, *options, "--output", tmp_path / "first")
    assert first.returncode == 0, first.stderr
    assert "building small once" in first.stderr
    assert f"proposals {PROPOSALS} at 0123456789ab, licence CC-BY-NC-4.0; clip " in first.stderr
    assert "No fine-tuning has been done." in first.stderr
    hub.use(monkeypatch, tmp_path / "nothing", None)
    second = run(main, *options, "--output", tmp_path / "second")
    assert second.returncode == 0, second.stderr
    assert "building" not in second.stderr
    assert "licence CC-BY-NC-4.0" in second.stderr
    for read in (read_tracks, read_masks):
        tables = [read(str(tmp_path / name)) for name in ("first", "second")]
        assert tables[0].num_rows > 0
        assert tables[0].equals(tables[1])
    assert read_videos(str(tmp_path / "first"))["frames"].to_pylist() == [12]
    assert set(read_tracks(str(tmp_path / "first"))["category"].to_pylist()) <= {"dog", "cat"}
    (report,) = (tmp_path / "first/runs").iterdir()
    facts = json.loads(report.read_text())["config"]
    assert (facts["model"], facts["tracker"]["association"]["kind"]) == ("small", "hungarian")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--checkpoint", "tests"], "model, checkpoint: both are given"),
        (["--licence", "permissive"], "the licence of proposals (facebook/mask2former-swin-tiny-coco-instance) is"),
        (["--model", "smal"], "there is no recipe 'smal'; did you mean small?"),
        (
            ["--tracker.association.kind", "rollout"],
            "tracker.association.kind: rollout needs a trained rollout tracker",
        ),
        ([], ""),
    ],
)
def test_what_stands_in_the_way_is_one_line_before_any_video_is_opened(
    more: list[str],
    expected: str,
    options: list[str],
    repositories: dict[str, Files],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without more options, it is that a file is missing."""
    hub.use(monkeypatch, tmp_path / "hub", None)
    if more:
        hub.write_cache(tmp_path / "hub", repositories)
    monkeypatch.setattr("pipelines.labelling.run.find_videos", lambda _: pytest.fail("videos were listed"))
    refused = run(main, *options, "--output", tmp_path / "labels", *more)
    assert refused.returncode == 2
    (line,) = [line for line in refused.stderr.splitlines() if "error" in line]
    assert line.startswith("label: error: ")
    assert (expected or f"{PROPOSALS}: config.json cannot be fetched: it is not in {tmp_path}/hub/models--") in line
    assert not (tmp_path / "labels").exists()
