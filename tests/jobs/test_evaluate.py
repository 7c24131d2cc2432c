import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.evaluate import main, print_results
from pipelines.datasets import ytvis
from pipelines.datasets.annotations import PredictedTrack
from pipelines.datasets.shapes_files import write_split
from pipelines.datasets.shapes_scenes import SceneConfig
from pipelines.report import CellResult


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return write_split(tmp_path, "valid", 2, 0, SceneConfig(frames=4)).path / "instances.json"


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


def test_oddities_are_warnings(truth: Path, predictions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(predictions.read_text())
    document[0]["segmentations"].pop()
    predictions.write_text(json.dumps(document))
    assert main(arguments(truth, predictions)) == 0
    printed = capsys.readouterr().out
    assert "warning: 1 × " in printed
    assert "strict rules refuse the files: " in printed


def test_bad_input_is_one_line(truth: Path, predictions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions.write_text(predictions.read_text()[:1000])
    assert main(arguments(truth, predictions)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"evaluate: error: {predictions}: not JSON, or cut off")
    assert error.count("\n") == 1


def test_unknown_options_are_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs.evaluate", "score", "--protocol", "coco"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "protocol" in done.stderr
    assert "Traceback" not in done.stderr


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
        about={},
        seconds=1.0,
    )
    bad = CellResult(**vars(good) | {"status": "failed", "error": "no space left", "numbers": {}})
    print_results([good, bad])
    assert capsys.readouterr().out == "a, shapes, iou: AP 25.0, AP50 50.0\na, shapes, iou: failed: no space left\n"
