import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from openvis_model.config import mini
from openvis_model.inst_former import InstFormer
from openvis_model.options import AssociationConfig
from openvis_model.vocabulary import prompt_words
from openvis_model.weights.checkpoint import save_checkpoint
from pipelines.evaluation.ablations import REPORT, Finding, run_ablations
from pipelines.evaluation.config import AblationsConfig, ClaimConfig, DatasetConfig, ModelConfig, RowConfig
from pipelines.metrics.intervals import Difference
from pipelines.shapes.categories import CATEGORIES
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig

HUNGARIAN = AssociationConfig(kind="hungarian", token="query")


def ablations(tmp_path: Path, **changes: Any) -> AblationsConfig:
    config = AblationsConfig(
        output=str(tmp_path / "ablations"),
        models=[ModelConfig(name="a", configs=["a.yaml"]), ModelConfig(name="b", configs=["a.yaml", "b.yaml"])],
        datasets=[DatasetConfig(name="novel", protocol="shapes", ground_truth=str(tmp_path / "novel/instances.json"))],
        rows=[
            RowConfig(table="5", name="first", model="a", dataset="novel", association=HUNGARIAN, paper=1.09),
            RowConfig(table="5", name="second", model="b", dataset="novel", association=HUNGARIAN),
            RowConfig(table="6", name="third", model="b", dataset="novel", association=AssociationConfig(kind="iou")),
            RowConfig(table="6", name="fourth", model="b", dataset="novel", association=HUNGARIAN),
        ],
        claims=[ClaimConfig(better="second", worse="first"), ClaimConfig(better="fourth", worse="second")],
    )
    return replace(config, **changes)


@pytest.mark.nightly
def test_rows_from_training_to_table(cluster: None, disc_model: None, tmp_path: Path) -> None:
    write_split(tmp_path, "novel", 2, 0, SceneConfig(frames=4))
    asked: list[str] = []

    def train(name: str, options: list[str]) -> None:
        asked.append(name)
        output = Path(options[-1])
        assert output == tmp_path / "ablations/models" / name
        if not output.exists():
            torch.manual_seed(len(asked))
            output.mkdir(parents=True)
            save_checkpoint(InstFormer(mini(prompt_words(each.name for each in CATEGORIES))), output / "model")

    config = ablations(tmp_path, seeds=[0, 7])
    findings = run_ablations(config, train)
    assert asked == ["a-0", "b-0", "a-7", "b-7"]
    assert [finding.claim for finding in findings] == config.claims
    assert findings[1] == Finding(claim=config.claims[1], difference=Difference(0.0, 0.0, 0.0, (0.0, 0.0)))  # one cell
    assert findings[1].verdict == "undecided"
    cells = sorted(path.parent.name for path in (tmp_path / "ablations").rglob("result.json"))
    settings = ["a-{},novel,hungarian-query-0.7", "b-{},novel,hungarian-query-0.7", "b-{},novel,iou-0.7"]
    assert cells == sorted(name.format(seed) for seed in (0, 7) for name in settings)
    table = (tmp_path / "ablations" / REPORT).read_text()
    assert table.startswith("### Table 5\n\n| | videos | paper, BURST | AP | micro AP |")
    assert "| first | novel | 1.09 | 0." in table
    assert "\n- novel: warning: not by the protocol, which wants 10 objects or more of each category" in table
    assert "| fourth > second | +0.0 AP | +0.0 to +0.0 | +0.0, +0.0 | undecided |" in table

    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "ablations").rglob("result.json")}
    run_ablations(config, train)
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.parametrize(
    ("low", "high", "each", "verdict"),
    [
        (0.01, 0.02, (0.01, 0.03), "holds"),
        (0.01, 0.02, (-0.01, 0.05), "undecided"),  # not with each seed
        (-0.01, 0.02, (0.01, 0.01), "undecided"),
        (-0.02, -0.01, (-0.01, -0.03), "reversed"),
        (-0.02, -0.01, (0.01, -0.03), "undecided"),
    ],
)
def test_verdicts(low: float, high: float, each: tuple[float, ...], verdict: str) -> None:
    difference = Difference((low + high) / 2, low, high, each)
    assert Finding(claim=ClaimConfig(better="a", worse="b"), difference=difference).verdict == verdict


def test_options_of_a_training(tmp_path: Path) -> None:
    """Stage 2 starts from the model of the same seed."""
    second = ModelConfig(name="b", configs=["a.yaml", "b.yaml"], start="a")
    config = ablations(tmp_path, models=[ModelConfig(name="a", configs=["a.yaml"]), second], seeds=[1, 2])
    models = f"{tmp_path}/ablations/models"
    files = ["--config", "a.yaml", "--config", "b.yaml"]
    start = ["--stage_2.start.checkpoint", f"{models}/a-2/model"]
    assert config.options(second, 2) == [*files, *start, "--seed", "2", "--output", f"{models}/b-2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"models": [ModelConfig(name="a", configs=[]), ModelConfig(name="a", configs=[])]},
            "models: 'a' is given twice",
        ),
        ({"models": [ModelConfig(name="a", configs=[])]}, "rows: second: model: unknown value 'b'; choose from a"),
        (
            {"models": [ModelConfig(name="full model", configs=[])]},
            "models: name 'full model' must be of letters, digits, - _ and .",
        ),
        ({"seeds": []}, r"seeds: expected different numbers from 0, got \[\]"),
        ({"seeds": [1, 1]}, r"seeds: expected different numbers from 0, got \[1, 1\]"),
        (
            {"models": [ModelConfig(name="a", configs=[], start="b"), ModelConfig(name="b", configs=[])]},
            "models: a: start: unknown value 'b'",
        ),
        (
            {"claims": [ClaimConfig(better="first", worse="x")]},
            "claims: worse: unknown value 'x'; choose from first, s",
        ),
        (
            {"claims": [ClaimConfig(better="first", worse="second", number="AP95")]},
            "claims: first: number: unknown value 'AP95'; choose from AP, base/AP",
        ),
        (
            {"datasets": [DatasetConfig(name="novel", protocol="uvo", ground_truth="a.json")]},
            "datasets: novel: protocol: expected shapes, got uvo",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ablations(tmp_path, **changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output": "s3://bucket/ablations"}, "output: s3://bucket/ablations is in the cloud; give a local folder"),
        ({"annotations": None}, "datasets: novel: .*instances.json has no annotations to score by"),
    ],
)
def test_bad_input_is_refused_before_the_first_training(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    truth = write_split(tmp_path, "novel", 1, 0, SceneConfig(frames=2)).path / "instances.json"
    if "annotations" in change:
        document = json.loads(truth.read_text())
        truth.write_text(json.dumps(document | change))
        change = {}
    with pytest.raises(ValueError, match=message):
        run_ablations(ablations(tmp_path, **change), lambda name, options: pytest.fail("started"))


def test_claims_are_about_one_data_set(tmp_path: Path) -> None:
    config = ablations(tmp_path)
    datasets = [*config.datasets, DatasetConfig(name="hard", protocol="shapes", ground_truth="b.json")]
    rows = [config.rows[0], replace(config.rows[1], dataset="hard")]
    with pytest.raises(ValueError, match="claims: second and first are rows of different data sets"):
        replace(config, datasets=datasets, rows=rows, claims=config.claims[:1])


def test_a_row_that_fails_is_named(tmp_path: Path) -> None:
    write_split(tmp_path, "novel", 1, 0, SceneConfig(frames=2))
    broken = Path(ablations(tmp_path).model_path("a", 0), "model")
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{}")
    with pytest.raises(RuntimeError, match="first: .*config.json"):
        run_ablations(ablations(tmp_path), lambda name, options: None)
