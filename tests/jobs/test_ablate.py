import os
from pathlib import Path

import pytest

import jobs.ablate
import jobs.train
from jobs.ablate import main
from jobs.options import read_config
from pipelines.evaluation.ablations import Finding
from pipelines.evaluation.config import AblationsConfig, ClaimConfig
from pipelines.metrics.intervals import Difference
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig, Split


@pytest.fixture
def rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with this project's configs, and ground truths."""
    (tmp_path / "jobs").symlink_to(Path("jobs").resolve())
    splits: tuple[Split, ...] = ("novel", "crossing")
    for split in splits:
        write_split(tmp_path / "runs/shapes_ablations", split, 1, 0, SceneConfig(frames=2))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("rendered")
def test_the_config_that_is_shipped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    configs: list[AblationsConfig] = []

    def run(config: AblationsConfig, *others: object) -> list[Finding]:
        configs.append(config)
        return [Finding(claim=ClaimConfig(better="a", worse="b"), difference=Difference(0.1, 0.05, 0.2, (0.1,)))]

    monkeypatch.setattr("pipelines.evaluation.ablations.run_ablations", run)
    assert main(["--config", "jobs/configs/ablations.yaml"]) == 0
    assert capsys.readouterr().out == "a > b: holds\ntables: runs/ablations/ablations.md\n"
    (config,) = configs
    assert {row.table for row in config.rows} == {"4", "5", "6"}
    assert {row.model for row in config.rows} == {model.name for model in config.models}
    assert len(config.seeds) >= 3
    for model in config.models:
        read_config("train", "", jobs.train.TrainConfig, config.options(model, 1))
    files = [Path(file) for model in config.models for file in model.configs]
    assert set(Path("jobs/configs/ablations").iterdir()) <= set(files)


def test_bad_options_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "absent.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ablate: error: ")
    assert error.count("\n") == 1


@pytest.mark.usefixtures("rendered")
def test_data_sets_are_looked_for_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs.train, "main", lambda arguments: pytest.fail("trained"))
    Path("runs/shapes_ablations/crossing/instances.json").unlink()
    assert main(["--config", "jobs/configs/ablations.yaml"]) == 2
    assert "datasets.crossing.ground_truth: runs/shapes_ablations/crossing/instances.json" in capsys.readouterr().err


@pytest.mark.usefixtures("rendered")
def test_a_training_that_breaks_off_ends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []

    def train(arguments: list[str]) -> int:
        asked.append(arguments)
        return 1

    monkeypatch.setattr(jobs.train, "main", train)
    assert main(["--config", "jobs/configs/ablations.yaml"]) == 1
    files = ["--config", "jobs/configs/mini/5_stage_1.yaml", "--config", "jobs/configs/ablations/stage_1.yaml"]
    assert asked == [[*files, "--seed", "0", "--output", "runs/ablations/models/full-0"]]
    assert "the training full-0 ended with exit code 1; see above" in capsys.readouterr().err


@pytest.mark.usefixtures("rendered")
def test_an_interrupted_training_ends_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(jobs.train, "main", lambda arguments: os.EX_TEMPFAIL)
    assert main(["--config", "jobs/configs/ablations.yaml"]) == os.EX_TEMPFAIL
    assert "ablate: interrupted; what is done is kept" in capsys.readouterr().err
