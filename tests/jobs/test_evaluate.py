import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.evaluate import main, print_results
from pipelines.datasets import ytvis
from pipelines.datasets.annotations import PredictedTrack
from pipelines.evaluation.report import CellResult
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from tests.pipelines.evaluation.few_categories import leave_out_categories
from tests.pipelines.metrics.burst_cases import CUP, FIRST, HAT, Files, Track, one


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    split = write_split(tmp_path, "valid", 2, 0, SceneConfig(frames=4)).path
    return leave_out_categories(split / "instances.json")


@pytest.fixture
def predictions(truth: Path, tmp_path: Path) -> Path:
    objects = ytvis.read_ground_truth(str(truth), strict=True)
    tracks = [
        PredictedTrack(video_id=t.video_id, category_id=t.category_id, score=0.5, masks=t.masks) for t in objects.tracks
    ]
    ytvis.write_predictions(tmp_path / "predictions.json", tracks)
    return tmp_path / "predictions.json"


def arguments(truth: Path, predictions: Path, protocol: str = "lvvis") -> list[str]:
    return ["score", "--protocol", protocol, "--ground_truth", str(truth), "--predictions", str(predictions)]


def test_a_score_is_a_table_and_a_file(
    truth: Path, predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "metrics.json"
    assert main([*arguments(truth, predictions), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in printed.splitlines()[:-1]}
    assert lines["all"] == ["base", "novel"]
    assert lines["AP"] == ["100.00", "100.00", "–"]
    assert "AP50 lost to classification 0.0, localisation 0.0, tracking 0.0" in printed
    assert json.loads(output.read_text())["mAP_base"] == pytest.approx(1)


def test_shapes_has_its_own_table(truth: Path, predictions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(predictions.read_text())
    document[0]["category_id"] = json.loads(truth.read_text())["categories"][-1]["id"]  # nothing is that
    predictions.write_text(json.dumps(document))
    assert main(arguments(truth, predictions, "shapes")) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("shapes, our own rules, ")
    lines = {line.split()[0]: line.split()[1:] for line in printed[1:]}
    right = f"{100 - 100 / len(document):.2f}"
    assert printed[1].split() == ["all", "base", "novel", "95", "%", "from", "to"]
    assert lines["top1"][:3] == [right, right, "–"]
    assert float(lines["top1"][3]) <= float(right) <= float(lines["top1"][4])
    assert lines["micro/AP"][1:3] == ["–", "–"]
    assert lines["oracle/AP"] == lines["agnostic/AP50"] == ["100.00", "–", "–", "–", "–"]
    assert lines["permuted/AP"][0] == "0.00"
    assert {"AP", "AP50", "matched", "top1/shape", "agnostic/AR1", "permuted/top1"} <= lines.keys()
    assert any(line.endswith("categories have objects, the rarest 1") for line in printed)
    assert any(line.startswith("warning: not by the protocol, which wants 10 objects") for line in printed)


def test_oddities_are_warnings(truth: Path, predictions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(predictions.read_text())
    document[0]["segmentations"].pop()
    predictions.write_text(json.dumps(document))
    assert main(arguments(truth, predictions)) == 0
    printed = capsys.readouterr().out
    assert "warning: 1 × " in printed
    assert "warning: strict rules refuse the files: " in printed


def test_bad_input_is_one_line(truth: Path, predictions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions.write_text(predictions.read_text()[:1000])
    assert main(arguments(truth, predictions)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"evaluate: error: {predictions}: not JSON, or cut off")
    assert error.count("\n") == 1


def test_burst_has_its_own_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, found = Files(tmp_path)(*one([Track(CUP, [FIRST, FIRST])], [Track(HAT, [FIRST, FIRST])], negative=[HAT]))
    assert main(arguments(Path(truth.path), Path(found.path), "burst")) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    assert ["open_world/OWTA", "100.00", "100.00", "–"] in rows
    assert ["class_guided/HOTA", "0.00", "0.00", "–"] in rows
    assert "AP50 lost to classification 0.0, localisation 0.0, " in printed
    assert ", background 0.0, missed 100.0\n" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["score", "--protocol", "coco"], "coco"),
        (["score", "--protocol", "lvvis", "--ground_truth", "a"], "predictions"),
        (
            ["score", "--proto", "lvvis", "--ground_truth", "a", "--predictions", "b"],
            "proto: no such option; did you mean protocol?",
        ),
        (
            ["score", "--thread=2", "--protocol", "lvvis", "--ground_truth", "a", "--predictions", "b"],
            "thread: no such",
        ),
        (["score", "--protocol", "lvvis", "--ground_truth", "a", "--predictions", "b", "--threads", "two"], "threads"),
        (["run", "--batch_size", "many"], "batch_size"),
        (["run", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["train"], "train"),
        ([], "command: expected score or run, got none"),
    ],
)
def test_wrong_options_are_one_line(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("evaluate: error: ")
    assert message in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)


SWEEP = """
output: results
datasets:
  - {name: a, protocol: lvvis, ground_truth: instances.json}
checkpoints:
  - name: built-in
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("output:", "batchsize: 8\noutput:", "batchsize"),
        ("protocol: lvvis", "protcol: lvvis", "protcol"),
        ("protocol: lvvis", "protocol: coco", "coco"),
        ("name: built-in", "nam: built-in", "nam"),
        ("output: results", "output: results\ntrackers: many", "trackers"),
        ("output: results", "output: results\nablations: [{name: a, association: {kin: iou}}]", "kin"),
        ("output: results", "output: [results", "is not YAML"),
    ],
)
def test_wrong_keys_of_a_sweep_are_named(
    old: str, new: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP.replace(old, new))
    assert main(["run", "--config", str(file), "--batch_size", "4"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"evaluate: error: {file}: ")
    assert message in error.removeprefix(f"evaluate: error: {file}: ")
    assert error.count("\n") == 1


def test_a_file_is_not_named_for_what_is_wrong_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP)
    assert main(["run", f"--config={file}", "--batch_size", "many"]) == 2
    assert str(file) not in capsys.readouterr().err
    file.write_text(SWEEP + "batch_size: many\n")
    assert main(["run", f"--config={file}"]) == 2
    assert capsys.readouterr().err.startswith(f"evaluate: error: {file}: ")


def test_a_sweep_is_read_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options beside it win, and may be what it lacks."""
    configs = []
    monkeypatch.chdir(tmp_path)
    (tmp_path / "instances.json").touch()
    monkeypatch.setattr("pipelines.evaluation.sweep.run_sweep", lambda config, report: configs.append(config) or [])
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP.replace("output: results\n", "batch_size: 2\ntrackers: 3\n"))
    assert main(["run", "--config", str(file), "--batch_size", "4", "--output", "here"]) == 0
    (config,) = configs
    assert (config.output, config.batch_size, config.trackers, config.checkpoints[0].name) == ("here", 4, 3, "built-in")
    assert main(["run", "--config", str(file)]) == 2
    assert "output" in capsys.readouterr().err


def test_the_job_prints_no_usage() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs.evaluate", "score", "--protocol", "coco"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("evaluate: error: ")
    assert done.stderr.count("\n") == 1


def test_a_sweep_is_a_line_per_cell(capsys: pytest.CaptureFixture[str]) -> None:
    good = CellResult(
        checkpoint="a",
        dataset="shapes",
        ablation="iou",
        protocol="ytvis",
        top_k=10,
        status="ok",
        error=None,
        numbers={"AP": 0.25, "AP50": 0.5},
        errors={},
        warnings=[],
        about={},
        seconds=1.0,
    )
    odd = replace(good, warnings=["2 × masks whose size is not their video's"])
    bad = CellResult(**vars(good) | {"status": "failed", "error": "no space left", "numbers": {}})
    print_results([good, bad, odd])
    assert capsys.readouterr().out.splitlines() == [
        "a, shapes, iou: AP 25.0, AP50 50.0",
        "a, shapes, iou: failed: no space left",
        "a, shapes, iou: AP 25.0, AP50 50.0",
        "  warning: 2 × masks whose size is not their video's",
    ]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("", "not JSON, or cut off"),
        ("[" * 200_000, "nested too deeply"),
        ('[{"a": ' * 200_000, "nested too deeply"),
        ("[]", "the file is an empty list"),
        ("[null]", "entry 0 is None"),
        ('[{"video_id": [1]}]', "entry 0 has 'video_id' [1]"),
        ('[{"video_id": 1, "category_id": {}}]', "entry 0 has 'category_id' {}"),
        ('[{"video_id": 1, "category_id": 1, "score": 1' + "0" * 400 + "}]", "entry 0 has 'score' 1"),
        ('[{"video_id": 1, "category_id": 1, "score": 1, "segmentations": [[[]]]}]', "entry 0, frame 0,"),
    ],
    ids=range(9),
)
def test_bad_predictions_are_named_by_file_and_place(
    content: str, place: str, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.json"
    file.write_text(content)
    assert main(arguments(truth, file)) == 2
    assert f"{file}: {place}" in capsys.readouterr().err
