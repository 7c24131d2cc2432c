import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from openvis_model.config import mini
from openvis_model.inst_former import InstFormer
from openvis_model.proposal_networks import NETWORKS
from openvis_model.training.config import InstanceObjectiveConfig, SetCriterionConfig, StartConfig
from openvis_model.vocabulary import prompt_words
from openvis_model.weights.checkpoint import load_checkpoint, save_checkpoint
from openvis_model.weights.folded_model import load
from pipelines.shapes.files import write_split
from pipelines.shapes.images import ShapesImagesConfig
from pipelines.shapes.scenes import SceneConfig
from pipelines.training.config import OptimizerConfig, TrainingConfig
from pipelines.training.data import TrainingDataConfig
from pipelines.training.run import train
from pipelines.training.share import Share
from pipelines.training.stage import Objective, Stage
from pipelines.training.stage_config import (
    InstanceStageConfig,
    PretrainingConfig,
    TrackingStageConfig,
    ValidationConfig,
)
from pipelines.training.stages import SHAPES_NAMES, InstanceStage, Pretraining, TrackingStage
from tests.networks import tiny_transformers
from tests.pipelines.datasets.training_sets import lvis_document, write_images, write_json
from tests.pipelines.evaluation.few_categories import leave_out_categories
from tests.pipelines.training.alone import curve, train_alone

SHARE = Share(first_step=0, last_step=2, batch_size=2, rank=0, world_size=1)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    split = write_split(tmp_path_factory.mktemp("shapes"), "train", 4, 0, SceneConfig(frames=6)).path
    leave_out_categories(split / "instances.json")
    return split


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained model whose batch norm is frozen, as that of pretrained backbones is."""
    torch.manual_seed(0)
    config = mini(prompt_words(SHAPES_NAMES))
    config = replace(config, mask_proposal=replace(config.mask_proposal, freeze_batch_norm=True))
    folder = tmp_path_factory.mktemp("start") / "model"
    save_checkpoint(InstFormer(config), folder)
    return str(folder)


def instance_config(split: Path, checkpoint: str) -> InstanceStageConfig:
    return InstanceStageConfig(
        start=StartConfig(checkpoint=checkpoint),
        data=TrainingDataConfig(
            annotations=str(split / "instances.json"), frames=2, height=96, width=128, max_stride=2
        ),
        objective=InstanceObjectiveConfig(criterion=SetCriterionConfig(num_points=256)),
    )


def tracking_config(split: Path, checkpoint: str) -> TrackingStageConfig:
    config = instance_config(split, checkpoint)
    return TrackingStageConfig(start=config.start, data=replace(config.data, frames=4, max_stride=1))


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        torch.testing.assert_close(b[name], tensor, rtol=0, atol=0)


def test_clips_of_one_frame_have_nothing_to_predict(split: Path) -> None:
    config = tracking_config(split, "model")
    assert isinstance(config.data, TrainingDataConfig)
    with pytest.raises(ValueError, match="data: frames: expected at least 2, .* got 1"):
        replace(config, data=replace(config.data, frames=1))


@pytest.mark.parametrize("kind", ["instances", "tracking"])
def test_the_stages_of_the_paper(kind: str, split: Path, checkpoint: str, tmp_path: Path) -> None:
    stage: InstanceStage | TrackingStage = InstanceStage(instance_config(split, checkpoint))
    if kind == "tracking":
        stage = TrackingStage(tracking_config(split, checkpoint))
    assert isinstance(stage, Stage)
    objective = stage.build(None)
    assert isinstance(objective, Objective)
    assert objective.training
    assert stage.validate(objective, 0, 1) == {}
    batches = list(stage.batches(SHARE))
    assert [[len(clip.frames) for clip in batch] for batch in batches] == [[2 if kind == "instances" else 4] * 2] * 2
    losses = objective(batches[0], objective.counts(batches[0]))
    sum(losses.values(), torch.zeros(())).backward()
    assert all(p.grad is not None for group in objective.parameter_groups().values() for p in group)

    with torch.no_grad():
        for group in objective.parameter_groups().values():
            for parameter in group:
                parameter.add_(0.01)
    objective.save(tmp_path / "saved")
    again = stage.build(tmp_path / "saved")
    again.eval()
    objective.eval()
    assert_same(weights(objective.model), weights(again.model))


@pytest.mark.parametrize("kind", ["instances", "tracking"])
def test_lvis_among_videos(kind: str, split: Path, checkpoint: str, tmp_path: Path) -> None:
    """Each clip learns names of its own data set; a run that resumes sees the clips that it would have seen."""
    document = lvis_document()
    names = iter(("red square", "brown arch", "blue square"))
    document["categories"] = [category | {"name": next(names)} for category in document["categories"]]
    write_images(tmp_path / "train2017")
    lvis = write_json(tmp_path / "lvis.json", document)
    config = instance_config(split, checkpoint) if kind == "instances" else tracking_config(split, checkpoint)
    assert not isinstance(config.data, tuple)
    config = replace(config, data=(config.data, replace(config.data, annotations=lvis, format="coco", weight=3.0)))
    stage = InstanceStage(config) if isinstance(config, InstanceStageConfig) else TrackingStage(config)
    objective = stage.build(None)
    first, second = stage.batches(replace(SHARE, batch_size=4))
    assert [clip.exhaustive for clip in first].count(True) == 1
    losses = objective(first, objective.counts(first))
    sum(losses.values(), torch.zeros(())).backward()
    assert all(value.isfinite() for value in losses.values())
    (again,) = stage.batches(replace(SHARE, batch_size=4, first_step=1))
    for one, other in zip(second, again, strict=True):
        assert np.array_equal(one.frames, other.frames)


def test_what_a_fingerprint_is_of(split: Path, checkpoint: str, tmp_path: Path) -> None:
    config = instance_config(split, checkpoint)
    before = InstanceStage(config).fingerprint()
    validation = ValidationConfig(annotations=config.data.annotations, most_videos=1)
    assert InstanceStage(replace(config, decoders=3, validation=validation)).fingerprint() == before
    others = [
        replace(config, data=replace(config.data, flip=0.25)),
        replace(config, objective=replace(config.objective, margin_weight=0.0)),
        replace(config, start=replace(config.start, seed=5)),
    ]
    annotations = json.loads(Path(config.data.annotations).read_text())
    annotations["annotations"].pop()
    (tmp_path / "instances.json").write_text(json.dumps(annotations))
    moved = replace(config.data, annotations=str(tmp_path / "instances.json"), videos=str(split))
    others.append(replace(config, data=moved))
    torch.manual_seed(1)
    save_checkpoint(InstFormer(mini(prompt_words(SHAPES_NAMES))), tmp_path / "other")
    others.append(replace(config, data=(config.data, moved)))
    others.append(replace(config, data=(config.data, replace(moved, weight=2.0))))
    found = {InstanceStage(other).fingerprint() for other in others}
    found.add(InstanceStage(replace(config, start=replace(config.start, clip=str(tmp_path / "other")))).fingerprint())
    assert len(found | {before}) == 8


def test_a_fingerprint_of_public_weights(split: Path, tmp_path: Path) -> None:
    """They have no fingerprint, so it is of the files: of a folder, or of one file."""
    found = set()
    for network in NETWORKS:
        tiny_transformers(network).save_pretrained(tmp_path)
        start = StartConfig(preset="mini", mask_proposal=str(tmp_path))
        found.add(InstanceStage(replace(instance_config(split, ""), start=start)).fingerprint())
    assert len(found) == 3
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    found.add(InstanceStage(replace(instance_config(split, ""), start=start)).fingerprint())
    start = StartConfig(preset="mini", mask_proposal=str(weights))
    found.add(InstanceStage(replace(instance_config(split, ""), start=start)).fingerprint())
    assert len(found) == 5


def test_bad_data_is_found_before_anything_runs(split: Path, checkpoint: str) -> None:
    config = instance_config(split, checkpoint)
    absent = replace(config, data=replace(config.data, annotations="absent.json"))
    with pytest.raises(ValueError, match=r"absent\.json"):
        InstanceStage(absent)
    with pytest.raises(ValueError, match=r"absent\.json"):
        InstanceStage(replace(config, validation=ValidationConfig(annotations="absent.json")))


def test_validation_is_video_ap(split: Path, checkpoint: str) -> None:
    config = instance_config(split, checkpoint)
    stage = InstanceStage(
        replace(config, validation=ValidationConfig(annotations=config.data.annotations, most_videos=1))
    )
    objective = stage.build(None)
    assert stage.validate(objective, 0, 1).keys() == {"AP", "AP50", "AR10"}
    assert objective.training


@pytest.mark.nightly
@pytest.mark.usefixtures("cluster")
def test_two_workers_train_as_one_does(split: Path, checkpoint: str, tmp_path: Path) -> None:
    """Over five steps, float32: losses to 1e-4, relative, and the gradient's norm to 1e-3."""
    stage = InstanceStage(instance_config(split, checkpoint))
    optimizer = OptimizerConfig(learning_rate=3e-4, clip_norm=1.0)
    shared: dict[str, Any] = {"steps": 5, "batch_size": 4, "threads": 1, "optimizer": optimizer}
    train_alone(TrainingConfig(output=str(tmp_path / "one"), **shared), stage)
    train(TrainingConfig(output=str(tmp_path / "two"), workers=2, **shared), stage)
    curves = curve(tmp_path / "one"), curve(tmp_path / "two")
    for one, two in zip(*curves, strict=True):
        losses = {name: value for name, value in one.items() if name.startswith("loss")}
        assert len(losses) == 6
        assert {name: two[name] for name in losses} == pytest.approx(losses, rel=1e-4)
        assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-3)
    assert curves[0][-1]["loss"] < curves[0][0]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "network", [pytest.param(name, marks=() if name == "mask2former" else pytest.mark.nightly) for name in NETWORKS]
)
def test_twenty_steps_of_both_stages_with_each_proposal_network(network: str, split: Path, tmp_path: Path) -> None:
    """From a folder of `transformers`, through the checkpoint of stage 1, to a model for inference."""
    tiny_transformers(network).save_pretrained(tmp_path / "public")
    start = StartConfig(preset="mini", mask_proposal=str(tmp_path / "public"))
    shared: dict[str, Any] = {"steps": 20, "batch_size": 2, "threads": 1, "checkpoint_every": 10}
    optimizer = OptimizerConfig(learning_rate=1e-3, clip_norm=1.0)
    first = InstanceStage(replace(instance_config(split, ""), start=start))
    train_alone(TrainingConfig(output=str(tmp_path / "1"), **shared, optimizer=optimizer), first)
    losses = [line["loss"] for line in curve(tmp_path / "1")]
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < np.mean(losses[:5])

    if network == "eomt":  # new weights have masks in every block; training takes them away
        assert load_checkpoint(tmp_path / "1/model").mask_proposal.network.attn_mask_probs.tolist() == [0, 0]

    second = TrackingStage(tracking_config(split, str(tmp_path / "1/model")))
    train_alone(TrainingConfig(output=str(tmp_path / "2"), **shared, optimizer=optimizer), second)
    losses = [line["loss"] for line in curve(tmp_path / "2")]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    model = load(tmp_path / "2/model")
    assert model(torch.zeros(1, 96, 128, 3, dtype=torch.uint8))[0].queries.shape == (7, 32)


@pytest.fixture(scope="module")
def pretraining() -> Pretraining:
    return Pretraining(PretrainingConfig(images=ShapesImagesConfig(objects=(1, 1))))


@pytest.mark.slow
def test_pretraining(pretraining: Pretraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With little fitting and few pictures to validate on; what fitting achieves is tested in test_contrastive.py."""
    monkeypatch.setattr("openvis_model.training.contrastive.FITTING_STEPS", 2)
    monkeypatch.setattr("pipelines.training.stages._VALIDATION_IMAGES", 40)
    assert isinstance(pretraining, Stage)
    objective = pretraining.build(None)
    assert isinstance(objective, Objective)
    batches = list(pretraining.batches(SHARE))
    losses = objective(batches[0], objective.counts(batches[0]))
    sum(losses.values(), torch.zeros(())).backward()
    assert all(p.grad is not None for group in objective.parameter_groups().values() for p in group)
    assert 0 <= pretraining.validate(objective, 0, 1)["top-1"] < 0.1  # of 1,000 names
    assert pretraining.validate(objective, 1, 2) == {}

    objective.save(tmp_path / "clip")
    again = pretraining.build(tmp_path / "clip")
    assert_same(weights(objective.clip), weights(again.clip))
    later = Pretraining(replace(pretraining.config, start=str(tmp_path / "clip")))
    assert_same(weights(objective.clip), weights(later.build(None).clip))
    assert later.fingerprint() != pretraining.fingerprint()
    assert Pretraining(replace(pretraining.config, decoders=2)).fingerprint() == pretraining.fingerprint()
