import json
from pathlib import Path

import pytest

from jobs import benchmark
from jobs.benchmark import main
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig


def test_it_prints_what_limits_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = next((write_split(tmp_path, "valid", 1, 0, SceneConfig(frames=4)).path / "videos").iterdir())
    options = [
        "--video",
        video,
        "--device",
        "cpu",
        "--batch_size",
        "2",
        "--stride",
        "2",
        "--seconds",
        "1e-9",
        "--core_price",
        "0.5",
    ]
    assert main([*map(str, options), "--output", str(tmp_path / "results.json")]) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    for stage in results["stages"]:
        assert f"{stage['name']:<16}{1e3 * stage['frame_s']:>10.2f}" in printed
    advice = results["advice"]
    assert f"{advice['frames_per_s']:.1f} frames/s at best, limited by {advice['limit']}" in printed
    assert "options for jobs.label: --batch_size 2 --stride 2 --model_actors " in printed
    assert advice["cost"] == pytest.approx(advice["hours"] * results["machine"]["cores"] * 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--video", "absent.mp4"], "video: absent.mp4"),
        (["--video", "s3://bucket/a.mp4"], "video: s3://bucket/a.mp4 is in the cloud; download it"),
        (["--output", "s3://bucket/a.json"], "output: "),
        (["--output", "absent/a.json"], "output: absent/a.json is a folder, or in none"),
        (["--device", "tpu"], "device: "),
    ],
)
def test_bad_input_ends_with_2(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options) == 2
    assert f"benchmark: error: {message}" in capsys.readouterr().err
    assert benchmark.__doc__
