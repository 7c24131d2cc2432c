import json
from pathlib import Path

import numpy as np
import pytest
import torch

from openvis_model.inst_former import InstFormer
from openvis_model.options import AssociationConfig, VideoTrackerConfig
from openvis_model.weights.checkpoint import load_checkpoint, save_checkpoint
from openvis_model.weights.files import BUILT_IN
from pipelines.archive.tables import Results
from pipelines.datasets import ytvis
from pipelines.datasets.annotations import PredictedTrack
from pipelines.datasets.benchmark_videos import category_ids, find_benchmark_videos
from pipelines.evaluation.predictions import read_predictions
from pipelines.evaluation.score import score_tracks
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.run import label_videos
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from pipelines.storage.files import Storage
from pipelines.training.stage_config import ValidationConfig
from pipelines.training.validation import TOP_K, Validation
from tests.pipelines.evaluation.few_categories import leave_out_categories


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three videos of 5 frames."""
    split = write_split(tmp_path_factory.mktemp("shapes"), "valid", 3, 0, SceneConfig(frames=5)).path
    leave_out_categories(split / "instances.json")
    return split


def predictions(split: Path, model: InstFormer, tmp_path: Path) -> list[PredictedTrack]:
    """Those of the labelling pipeline."""
    save_checkpoint(model, tmp_path / "model")
    names = tmp_path / "names.txt"
    categories = json.loads((split / "instances.json").read_text())["categories"]
    names.write_text("\n".join(category["name"] for category in categories))
    association = AssociationConfig(kind="hungarian", min_similarity=-1.0)
    label_videos(
        LabelConfig(
            input=str(split / "videos"),
            output=str(tmp_path / "labels"),
            vocabulary=str(names),
            checkpoint=str(tmp_path / "model"),
            tracker=VideoTrackerConfig(association=association, objectness_threshold=0.0, max_gap=5),
            objectness_floor=0.0,
            top=TOP_K,
        )
    )
    truth = ytvis.read_ground_truth(str(split / "instances.json"), strict=True)
    videos = find_benchmark_videos(truth.videos, str(split))
    results = Results(Storage(str(tmp_path / "labels")))
    return list(read_predictions(results, videos, category_ids(truth.categories), top_k=TOP_K))


@pytest.mark.nightly
@pytest.mark.usefixtures("cluster")
def test_validation_finds_what_labelling_finds(split: Path, tmp_path: Path) -> None:
    model = load_checkpoint(BUILT_IN)
    expected = predictions(split, model, tmp_path)
    config = ValidationConfig(
        annotations=str(split / "instances.json"),
        association=AssociationConfig(kind="hungarian", min_similarity=-1.0),
    )
    validation = Validation(config)
    segmenter = validation.segmenter(model)
    found = [track for video in validation.videos for track in validation.predict(segmenter, video)]
    assert [(track.video_id, track.category_id) for track in found] == [
        (track.video_id, track.category_id) for track in expected
    ]
    assert [track.score for track in found] == pytest.approx([track.score for track in expected], abs=1e-5)
    same = [one.masks == other.masks for one, other in zip(found, expected, strict=True)]
    assert sum(same) > 0.9 * len(same)  # folded weights may move a pixel
    truth = ytvis.read_ground_truth(config.annotations, strict=True)
    numbers, _ = score_tracks("ytvis", truth, found)
    assert validation(model) == {name: numbers[name] for name in ("AP", "AP50", "AR10")}


def test_tracks_go_on_after_cuts_as_in_benchmarks(split: Path) -> None:
    segmenter = Validation(ValidationConfig(annotations=str(split / "instances.json"))).segmenter(
        load_checkpoint(BUILT_IN)
    )
    frames = np.concatenate([np.zeros((4, 96, 128, 3), np.uint8), np.full((4, 96, 128, 3), 255, np.uint8)])
    assert not any(frame.begins_shot for frame in segmenter.track(frames))


def test_only_the_first_videos_count(split: Path) -> None:
    validation = Validation(ValidationConfig(annotations=str(split / "instances.json"), most_videos=2))
    assert [video.id for video in validation.videos] == [1, 2]
    assert {track.video_id for track in validation.truth.tracks} == {1, 2}


def test_a_model_in_training_is_again_afterwards(split: Path) -> None:
    model = load_checkpoint(BUILT_IN)
    model.train_only(1)
    model.train()
    Validation(ValidationConfig(annotations=str(split / "instances.json"), most_videos=1))(model)
    assert model.mask_proposal.training
    assert not model.rollout_tracker.training
    assert torch.is_grad_enabled()


def test_missing_videos_are_named_before_anything_runs(split: Path, tmp_path: Path) -> None:
    truth = json.loads((split / "instances.json").read_text())
    truth["videos"][1]["video"] = "videos/nowhere.mp4"
    (tmp_path / "instances.json").write_text(json.dumps(truth))
    with pytest.raises(ValueError, match=r"nowhere\.mp4 is missing, video 2"):
        Validation(ValidationConfig(annotations=str(tmp_path / "instances.json"), videos=str(split)))
