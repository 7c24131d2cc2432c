"""What a sweep writes for labelling and for servers; labelling itself is replaced by an archive written by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from openvis_model.vocabulary import Vocabulary
from pipelines.archive.parts import Rows
from pipelines.archive.tables import Results
from pipelines.evaluation.config import CheckpointConfig, DatasetConfig, SweepConfig
from pipelines.evaluation.sweep import run_sweep
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.run import LabelSummary
from pipelines.models import load_vocabulary
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name, row

NAMES = ("#red triangle", "lamp, street", "Polo", "polo")
FULL = {"size": [2, 3], "counts": "06"}


def label(config: LabelConfig, report: Any) -> LabelSummary:
    """Finds one object in the video, best named by the last category."""
    vocabulary = load_vocabulary(config.vocabulary)
    assert vocabulary == Vocabulary.of_dataset(NAMES)
    rows, top = Rows(), [{"category": name, "score": 0.1 * i} for i, name in enumerate(vocabulary.names, start=1)][::-1]
    rows.add("masks", [row("masks", video_id="3", track_id=1, frame=0, rle=FULL)])
    rows.add("tracks", [row("tracks", video_id="3", track_id=1, top=top)])
    fingerprints = {f"{name}_fingerprint": name for name in ("model", "vocabulary", "config")}
    rows.add("videos", [row("videos", video_id="3", status="ok", frames=1, **fingerprints)])
    rows.put(Results(Storage(config.output)).storage, part_name(1))
    return LabelSummary(videos=1, skipped=0, ok=1, failures={}, frames=1, tracks=1, seconds=0.0)


def sweep(folder: Path, annotations: dict[str, Any]) -> SweepConfig:
    (folder / "a.mp4").touch()
    document = {
        "videos": [{"id": 3, "height": 2, "width": 3, "length": 1, "video": "a.mp4"}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES)],
    }
    (folder / "valid.json").write_text(json.dumps(document | annotations))
    dataset = DatasetConfig(name="valid", protocol="ytvis", ground_truth=str(folder / "valid.json"), top_k=4)
    return SweepConfig(output=str(folder / "out"), datasets=[dataset], checkpoints=[CheckpointConfig(name="built-in")])


def predicted(folder: Path) -> list[tuple[int, int, Any]]:
    file = folder / "out" / "cells" / "built-in,valid,rollout" / "predictions.json"
    return [(each["video_id"], each["category_id"], each["segmentations"]) for each in json.loads(file.read_text())]


@pytest.fixture(autouse=True)
def labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.evaluation.sweep.label_videos", label)


def test_every_name_of_the_data_set_is_looked_for(tmp_path: Path) -> None:
    """Neither a comment, nor a synonym, nor a slip."""
    track = {"id": 1, "video_id": 3, "category_id": 3, "iscrowd": 0, "areas": [6], "segmentations": [FULL]}
    (result,) = run_sweep(sweep(tmp_path, {"annotations": [track]}))
    assert (result.status, result.error) == ("ok", None)
    assert predicted(tmp_path) == [(3, number, [FULL]) for number in (3, 2, 1, 0)]
    assert result.numbers["AP"] == pytest.approx(1)


@pytest.mark.parametrize("annotations", [{}, {"annotations": None}], ids=["missing", "null"])
def test_a_public_validation_file_gives_predictions_for_the_server(tmp_path: Path, annotations: dict[str, Any]) -> None:
    config = sweep(tmp_path, annotations)
    (result,) = run_sweep(config)
    assert (result.status, result.error, result.numbers) == ("unscored", None, {})
    assert len(predicted(tmp_path)) == 4
    assert "unscored" in (tmp_path / "out" / "results.md").read_text()
    assert run_sweep(config) == [result]
