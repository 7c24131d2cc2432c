import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import jobs.label
import jobs.train
from jobs.options import read_config
from jobs.train import TrainConfig, TrainProgress, main, print_summary
from openvis_model.config import paper
from openvis_model.options import SIZE_DIVISOR
from openvis_model.working_size import working_size
from pipelines.archive.tables import Results
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from pipelines.storage.files import Storage
from pipelines.training.config import OptimizerConfig, TrainingConfig
from pipelines.training.optimizer import learning_rate_factor
from pipelines.training.progress import TrainingProgress
from pipelines.training.run import TrainingSummary
from tests.jobs.summary import SUMMARY


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainingConfig]:
    """The settings of trainings that were started."""
    configs: list[TrainingConfig] = []

    def train(config: TrainingConfig, *others: Any) -> TrainingSummary:
        configs.append(config)
        return SUMMARY

    monkeypatch.setattr("pipelines.training.run.train", train)
    return configs


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--outptu", "x", "--steps", "3", "--batch_size", "2"], "did you mean output?"),
        (["--output", "x", "--steps", "3"], "batch_size"),
        (["--output", "x", "--steps", "few", "--batch_size", "2"], "steps"),
        (["--output", "x", "--steps", "3", "--batch_size", "2", "--workers", "3"], "batch_size: expected a multiple"),
        (
            ["--output", "x", "--steps", "3", "--batch_size", "2"],
            "stage_1: give one of pretraining, stage_1, stage_2; got none",
        ),
    ],
)
def test_bad_options_are_named(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str], trained: list[TrainingConfig]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert not trained


def test_a_config_file_gives_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trained: list[TrainingConfig]
) -> None:
    config = tmp_path / "training.yaml"
    config.write_text(
        "output: out\nsteps: 100\nbatch_size: 16\noptimizer:\n  learning_rate: 1.0e-3\n  milestones: [0.5]\n"
        "  clip_norm: null\npretraining: {seed: 1}\n"
    )
    assert main(["--config", str(config), "--workers", "2"]) == 0
    optimizer = OptimizerConfig(learning_rate=1e-3, milestones=(0.5,), clip_norm=None)
    assert trained == [TrainingConfig(output="out", steps=100, batch_size=16, workers=2, optimizer=optimizer)]
    assert capsys.readouterr().out == "100 steps, in 12 s → out/model\nloss 1.5, AP 12.5\n"


@pytest.mark.parametrize(
    ("option", "field"),
    [
        ("stage_1: {start: {preset: paper, mask_proposal: absent.pkl}, data: {annotations: .}}", "mask_proposal"),
        ("stage_1: {start: {preset: paper, clip: weights/absent.pt}, data: {annotations: .}}", "clip"),
        ("pretraining: {start: absent}", "pretraining.start"),
    ],
)
def test_weights_are_looked_for(
    option: str, field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], trained: list[TrainingConfig]
) -> None:
    config = tmp_path / "training.yaml"
    config.write_text(f"output: out\nsteps: 1\nbatch_size: 1\n{option}\n")
    assert main(["--config", str(config)]) == 2
    assert re.search(rf"{field}: [\w/]*absent[.\w]* does not exist; correct the path", capsys.readouterr().err)
    assert not trained


def test_each_of_several_data_sets_is_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trained: list[TrainingConfig]
) -> None:
    present, absent = tmp_path / "a.json", tmp_path / "b.json"
    present.write_text("{}")
    config = tmp_path / "training.yaml"
    data = f"[{{annotations: {present}}}, {{annotations: {absent}, format: coco, weight: 3}}]"
    config.write_text(f"output: out\nsteps: 1\nbatch_size: 1\nstage_1: {{start: {{preset: mini}}, data: {data}}}\n")
    assert main(["--config", str(config)]) == 2
    assert str(absent) in capsys.readouterr().err
    config.write_text(config.read_text().replace("weight: 3", "weight: 3, height: 64"))
    assert main(["--config", str(config)]) == 2
    assert "data: data set 1 has height 64, but the first one 384" in capsys.readouterr().err
    assert not trained


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("output: is\nof another"), 2, "train: error: output: is of another"),
        (RuntimeError("the run broke off"), 1, "train: error: the run broke off"),
        (KeyboardInterrupt(), os.EX_TEMPFAIL, "train: interrupted; checkpoints are kept; run it again to resume"),
    ],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    message: str,
    trained: list[TrainingConfig],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def train(*arguments: Any) -> TrainingSummary:
        raise error

    monkeypatch.setattr("pipelines.training.run.train", train)
    assert main(["--output", "x", "--steps", "3", "--batch_size", "2", "--pretraining.seed", "1"]) == code
    assert capsys.readouterr().err.strip() == message


def test_summaries(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(replace(SUMMARY, first_step=60))
    print_summary(replace(SUMMARY, first_step=100))
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == [
        "100 steps, the last 40 of them now, in 12 s → out/model",
        "100 steps already done → out/model",
    ]


def test_the_progress_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    line = TrainProgress()

    def at(step: int, after: float, **values: Any) -> str:
        now[0] = 1000 + after
        line(TrainingProgress(step=step, steps=6000, first_step=0, **values))
        return capsys.readouterr().err

    assert at(1, 0, loss=9.0) == at(20, 9) == ""  # not yet time for a line
    working = {"loss": 4.3123, "scores": {"AP": 0.12}, "seconds": 40.0, "data_seconds": 1.0}
    assert at(121, 40, **working) == ("step 121/6000, loss 4.312, AP 12.0, 3 steps/s, data wait 2 %, 33 min left\n")
    assert at(101, 80, loss=4.0, restarts=1) == "step 101/6000, loss 4, 1 restart\n"
    assert at(201, 100, loss=4.0, restarts=1).endswith("5 steps/s, 1 restart, 19 min left\n")
    assert at(6000, 101, loss=1.0, restarts=1).startswith("step 6000/6000, loss 1, ")


def test_a_terminal_has_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("jobs.progress.REWRITE_EVERY", 0)
    line = TrainProgress()
    line(TrainingProgress(step=1, steps=3, first_step=0, loss=2.0))
    line(TrainingProgress(step=2, steps=3, first_step=0, loss=1.0))
    shown = capsys.readouterr().err
    assert "\n" not in shown
    assert shown.count("\r") == 2


@pytest.mark.parametrize(
    "config",
    [path for name in ("mini", "paper", "paper_lvis") for path in Path("jobs/configs", name).iterdir()],
    ids=str,
)
def test_every_config_that_is_shipped_can_be_read(config: Path) -> None:
    assert read_config("train", "", TrainConfig, ["--config", str(config), "--output", "out"]).output == "out"


def test_stage_1_of_the_paper_is_trained_as_minvis_is() -> None:
    """32 frames, mirrored but not cropped, at the working size; AdamW with a tenth of the rate after two thirds."""
    recipe = ["--config", "jobs/configs/paper/stage_1.yaml", "--output", "out"]
    config = read_config("train", "", TrainConfig, recipe)
    assert config.stage_1
    data, optimizer = config.stage_1.data, config.optimizer
    assert (config.batch_size, data.frames, data.flip, data.min_crop) == (32, 1, 0.5, 1.0)
    assert data.size == working_size(720, 1280, short_side=paper().short_side, divisor=SIZE_DIVISOR)
    assert (data.brightness, data.contrast, data.saturation, data.hue) == (0, 0, 0, 0)
    assert (optimizer.learning_rate, optimizer.backbone_factor, optimizer.weight_decay) == (1e-4, 0.1, 0.05)
    factors = [learning_rate_factor(step, config.steps, optimizer) for step in (0, 3999, 4000, 5999)]
    assert (factors, optimizer.clip_norm) == (pytest.approx([1, 1, 0.1, 0.1]), 0.01)


def test_half_of_the_clips_are_of_lvis_in_the_recipe_with_it() -> None:
    recipe = ["--config", "jobs/configs/paper_lvis/stage_1.yaml", "--output", "out"]
    config = read_config("train", "", TrainConfig, recipe)
    assert config.stage_1
    lvis, coco, videos = config.stage_1.data_sets
    assert (lvis.annotations, lvis.videos, lvis.format) == ("data/lvis/lvis_v1_train.json", "data/coco", "coco")
    assert (coco.videos, coco.format) == ("data/coco/train2017", "coco")
    assert (videos.videos, videos.format) == ("data/youtube_vis_2019/train/JPEGImages", "ytvis")
    assert lvis.weight / (lvis.weight + coco.weight + videos.weight) == 0.5
    paper = read_config("train", "", TrainConfig, ["--config", "jobs/configs/paper/stage_1.yaml", "--output", "out"])
    assert config.optimizer == paper.optimizer


@pytest.mark.nightly
@pytest.mark.usefixtures("cluster")
def test_from_pictures_to_a_labelled_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten iterations of each stage, each from the checkpoint before; the last one labels videos."""
    split = write_split(tmp_path / "shapes", "train", 3, 0, SceneConfig(frames=6)).path
    data = {"annotations": str(split / "instances.json"), "height": 96, "width": 128, "max_stride": 1}
    stages: dict[str, dict[str, Any]] = {
        "pretraining": {"images": {"objects": [1, 1]}},
        "stage_1": {
            "start": {"preset": "mini", "clip": str(tmp_path / "pretraining/model")},
            "data": data | {"frames": 2},
            "objective": {"criterion": {"num_points": 256}},
            "validation": {"annotations": data["annotations"], "most_videos": 1},
        },
        "stage_2": {"start": {"checkpoint": str(tmp_path / "stage_1/model")}, "data": data | {"frames": 4}},
    }
    for name, settings in stages.items():
        options = {"steps": 10, "batch_size": 4, "threads": 1, "checkpoint_every": 5, name: settings}
        options["optimizer"] = {"learning_rate": 1e-3, "clip_norm": 1.0}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(options))
        assert main(["--config", str(tmp_path / f"{name}.yaml"), "--output", str(tmp_path / name)]) == 0
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(1, 11))
        losses = [line["loss"] for line in lines]
        assert sum(losses[-3:]) < sum(losses[:3])
    labels = ["--input", str(split / "videos"), "--vocabulary", str(split / "vocabulary.txt")]
    checkpoint = str(tmp_path / "stage_2/model")
    assert jobs.label.main([*labels, "--checkpoint", checkpoint, "--output", str(tmp_path / "labels")]) == 0
    videos = Results(Storage(str(tmp_path / "labels"))).read("videos").to_pylist()
    assert [video["status"] for video in videos] == ["ok"] * 3
    first, *others = [(tmp_path / name / "model/clip.safetensors").read_bytes() for name in stages]
    assert others == [first, first]  # frozen
