import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pyarrow.parquet as pq
import pytest

from openvis_model.options import AssociationConfig
from openvis_model.vocabulary import Vocabulary
from pipelines.archive.tables import Results
from pipelines.datasets import burst_files, ytvis
from pipelines.datasets.benchmark_videos import category_ids, find_benchmark_videos
from pipelines.evaluation.benchmarks import Protocol
from pipelines.evaluation.config import AblationConfig, CheckpointConfig, DatasetConfig, SweepConfig
from pipelines.evaluation.predictions import read_predictions
from pipelines.evaluation.score import score_tracks
from pipelines.evaluation.sweep import Dataset, run_sweep
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from pipelines.storage.files import Storage
from tests.pipelines.archive.archives import write_star
from tests.pipelines.evaluation.few_categories import leave_out_categories

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster", "disc_model")]

BUILT_IN = CheckpointConfig(name="built-in")
ASSOCIATIONS = [AblationConfig(name=kind, association=AssociationConfig(kind=kind)) for kind in ("rollout", "iou")]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The annotations of two videos of 8 frames."""
    split = write_split(tmp_path_factory.mktemp("shapes"), "valid", 2, 0, SceneConfig(frames=8)).path
    return leave_out_categories(split / "instances.json")


def config(truth: Path, output: Path, **options: Any) -> SweepConfig:
    dataset = DatasetConfig(name="shapes", protocol="lvvis", ground_truth=str(truth), top_k=10)
    options = {"datasets": [dataset], "checkpoints": [BUILT_IN], "ablations": ASSOCIATIONS} | options
    return SweepConfig(output=str(output), **options)


@pytest.fixture(scope="module")
def sweep(
    truth: Path, tmp_path_factory: pytest.TempPathFactory, disc_model: None
) -> tuple[SweepConfig, list[Any], list[Any]]:
    """A sweep of a broken checkpoint and the built-in model; its results while a video is junk, and afterwards."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "broken").mkdir()
    (folder / "broken/config.json").write_text("{}")
    checkpoints = [CheckpointConfig(name="broken", path=str(folder / "broken")), BUILT_IN]
    sweep = config(truth, folder / "out", checkpoints=checkpoints, ablations=ASSOCIATIONS[:1])
    video = next((truth.parent / "videos").iterdir())
    whole = video.read_bytes()
    video.write_bytes(b"junk" * 99)
    before = run_sweep(sweep)
    video.write_bytes(whole)
    return sweep, before, run_sweep(sweep)


def test_a_video_that_failed_is_tried_again(sweep: tuple[SweepConfig, list[Any], list[Any]]) -> None:
    """Without all videos there is no score; once the file is mended there is one."""
    _, (_, before), (_, after) = sweep
    assert before.status == "failed"
    assert "1 of 2 videos have no labels, so no score" in str(before.error)
    assert (after.status, after.error) == ("ok", None)


def test_a_sweep_fails_cell_by_cell_and_goes_on_where_it_was(sweep: tuple[SweepConfig, list[Any], list[Any]]) -> None:
    options, _, results = sweep
    assert [(each.checkpoint, each.ablation, each.status) for each in results] == [
        ("broken", "rollout", "failed"),
        ("built-in", "rollout", "ok"),
    ]
    assert "broken" in str(results[0].error)
    output = Path(options.output)
    assert "built-in" in (output / "index.html").read_text()
    assert pq.read_table(output / "results.parquet").num_rows == 2
    stored = output / "cells/built-in,shapes,rollout/result.json"
    changed = stored.stat().st_mtime_ns
    again = run_sweep(options)
    assert stored.stat().st_mtime_ns == changed
    assert again[1:] == results[1:]


def test_the_exported_file_scores_as_the_tables_do(
    truth: Path, sweep: tuple[SweepConfig, list[Any], list[Any]]
) -> None:
    options, _, (_, result) = sweep
    objects = ytvis.read_ground_truth(str(truth), strict=True)
    results = Results(Storage(str(Path(options.output, "cells/built-in,shapes,rollout/labels"))))
    videos, ids = find_benchmark_videos(objects.videos, str(truth.parent)), category_ids(objects.categories)
    tracks = list(read_predictions(results, videos, ids, top_k=10))
    assert len(tracks) == 20
    numbers, errors = score_tracks("lvvis", objects, tracks)
    assert numbers == result.numbers
    assert errors == result.errors
    assert result.about["ground_truth_sha256"] == objects.sha256
    assert result.about["model_fingerprint"]


@pytest.mark.nightly
def test_exemplars_take_the_place_of_names(truth: Path, tmp_path: Path) -> None:
    """Other pictures make another cell; a name that the data set lacks is refused before anything starts."""
    write_star(tmp_path)
    name = json.loads(truth.read_text())["categories"][0]["name"]
    (tmp_path / "shown.txt").write_text(f"{name}: star.png mask star_mask.png")
    dataset = DatasetConfig(
        name="shapes", protocol="lvvis", ground_truth=str(truth), top_k=10, exemplars=str(tmp_path / "shown.txt")
    )
    options = config(truth, tmp_path / "out", datasets=[dataset], ablations=ASSOCIATIONS[:1])
    (first,) = run_sweep(options)
    assert (first.status, first.error) == ("ok", None)
    vocabulary = Vocabulary.read(tmp_path / "out/cells/built-in,shapes,rollout/vocabulary.json")
    assert [str(each) for each in vocabulary.shown] == [f"{tmp_path}/star.png mask {tmp_path}/star_mask.png"]
    (tmp_path / "star.png").write_bytes((tmp_path / "star_mask.png").read_bytes())
    (second,) = run_sweep(options)
    assert second.about["vocabulary_fingerprint"] != first.about["vocabulary_fingerprint"]
    (tmp_path / "shown.txt").write_text("giraffe: star.png")
    with pytest.raises(ValueError, match="datasets: shapes: category 'giraffe' is not among the .* names"):
        run_sweep(options)


@pytest.mark.nightly
def test_a_killed_sweep_keeps_its_finished_cells(truth: Path, tmp_path: Path) -> None:
    """SIGKILL of the driver while the second cell runs."""
    file, output = tmp_path / "sweep.yaml", tmp_path / "out"
    dataset = {"name": "shapes", "protocol": "lvvis", "ground_truth": str(truth), "top_k": 10}
    ablations = [{"name": kind, "association": {"kind": kind}} for kind in ("rollout", "iou")]
    document = {"output": str(output), "datasets": [dataset], "checkpoints": [{"name": "built-in"}]}
    file.write_text(json.dumps(document | {"ablations": ablations}))  # JSON is YAML
    command = [sys.executable, "-m", "jobs.evaluate", "run", "--config", str(file)]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = output / "cells" / "built-in,shapes,rollout" / "result.json"
    deadline = time.monotonic() + 900
    while not first.exists():
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    changed = first.stat().st_mtime_ns
    assert not (first.parents[1] / "built-in,shapes,iou" / "result.json").exists()
    results = run_sweep(config(truth, output))
    assert [each.status for each in results] == ["ok", "ok"]
    assert first.stat().st_mtime_ns == changed


@pytest.mark.nightly
def test_burst_is_handed_in_as_burst(truth: Path, tmp_path: Path) -> None:
    """Images, ids from 1, and a file that BURST's reader takes strictly."""
    objects = write_burst(tmp_path, truth)
    dataset = DatasetConfig(
        name="burst", protocol="burst", ground_truth=str(objects), videos=str(tmp_path / "frames"), top_k=5
    )
    (result,) = run_sweep(config(truth, tmp_path / "out", datasets=[dataset], ablations=ASSOCIATIONS[:1]))
    assert (result.status, result.error) == ("ok", None)
    assert 0 <= result.numbers["class_guided/HOTA/all"] <= 100
    read = burst_files.read_ground_truth(str(objects), strict=True)
    file = tmp_path / "out" / "cells" / "built-in,burst,rollout" / "predictions.json"
    predicted = burst_files.read_predictions(str(file), read, strict=True)
    assert {len(set(rows.track_id.tolist())) for rows in predicted.sequences} == {5}


def write_burst(folder: Path, truth: Path) -> Path:
    """The same objects in BURST's format, with the frames of the videos as images."""
    shapes = ytvis.read_ground_truth(str(truth), strict=True)
    sequences = []
    for video in shapes.videos:
        tracks = [track for track in shapes.tracks if track.video_id == video.id]
        paths = [f"frame{frame:04}.jpg" for frame in range(video.length)]
        write_frames(truth.parent / str(video.video), folder / "frames" / "val" / "Shapes" / str(video.id), paths)
        segmentations = [
            {str(t.id): {"rle": m.counts.decode()} for t in tracks if (m := t.masks[frame])}
            for frame in range(video.length)
        ]
        sequences.append(
            {
                "dataset": "Shapes",
                "seq_name": str(video.id),
                "height": video.height,
                "width": video.width,
                "annotated_image_paths": paths,
                "neg_category_ids": [],
                "not_exhaustive_category_ids": [],
                "track_category_ids": {str(track.id): track.category_id for track in tracks},
                "segmentations": segmentations,
            }
        )
    categories = [{"id": each.id, "name": each.name} for each in shapes.categories]
    path = folder / "all_classes.json"
    path.write_text(json.dumps({"split": "val", "sequences": sequences, "categories": categories}))
    return path


def write_frames(video: Path, folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    with av.open(str(video)) as container:
        for name, frame in zip(names, container.decode(video=0), strict=True):
            frame.to_image().save(folder / name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoints": [CheckpointConfig(name="a", path="/absent")]}, "a: /absent is not a checkpoint folder"),
        ({"checkpoints": [CheckpointConfig(name="a", path="s3://b/c")]}, "a: s3://b/c is in the cloud; copy it"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"datasets": [DatasetConfig(name="s", protocol="uvo", ground_truth="/absent.json")]}, "s: /absent.json"),
        ({"output": "/proc/no"}, "output: cannot write"),
        ({"output": "s3://bucket/sweep"}, "output: s3://bucket/sweep is in the cloud; give a local folder"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_anything_starts(
    options: dict[str, Any], message: str, truth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.evaluation.sweep.label_videos", lambda *_: pytest.fail("started"))
    with pytest.raises(ValueError, match=message):
        run_sweep(SweepConfig(**vars(config(truth, tmp_path)) | options))


@pytest.mark.parametrize(
    ("protocol", "change", "message"),
    [
        ("lvvis", {"videos": []}, "s: .*json has no videos; give a file with some"),
        ("lvvis", {"categories": [{"id": 1, "name": "disc"}]}, "s: .*category 1 has the partition None; LV-VIS needs"),
        ("shapes", {"categories": [{"id": "1", "name": "disc", "partition": 1}]}, "s: .* give a whole number"),
    ],
)
def test_what_no_prediction_can_be_scored_by_is_refused_before_anything_starts(
    protocol: Protocol, change: dict[str, Any], message: str, truth: Path, tmp_path: Path
) -> None:
    document = json.loads(truth.read_text())
    category = (change.get("categories") or document["categories"])[0]["id"]
    document["annotations"] = [entry | {"category_id": category} for entry in document["annotations"][:1]]
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(document | change))
    dataset = DatasetConfig(name="s", protocol=protocol, ground_truth=str(file), videos=str(truth.parent))
    with pytest.raises(ValueError, match=message):
        Dataset.open(dataset)


def test_oddities_of_the_ground_truth_are_in_the_report(truth: Path, tmp_path: Path) -> None:
    document = json.loads(truth.read_text())
    document["videos"][0]["not_exhaustive_category_ids"] = [document["categories"][0]["id"]]
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(document))
    dataset = DatasetConfig(name="s", protocol="ytvis", ground_truth=str(file), videos=str(truth.parent), top_k=10)
    (result,) = run_sweep(config(truth, tmp_path / "out", datasets=[dataset], ablations=ASSOCIATIONS[:1]))
    warning = "1 × videos of which only some categories are known: predictions of the others count as wrong"
    assert warning in result.warnings
    assert warning in (tmp_path / "out/index.html").read_text()
    assert f"built-in, rollout: {warning}" in (tmp_path / "out/results.md").read_text()


def test_data_sets_are_checked() -> None:
    good = DatasetConfig(name="s", protocol="uvo", ground_truth="a.json")
    with pytest.raises(ValueError, match="s: top_k: expected at least 1, got 0"):
        replace(good, top_k=0)
