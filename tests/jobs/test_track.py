import subprocess
import sys
from pathlib import Path

import pytest

from jobs.track import main
from pipelines.archive.tables import read_tracks
from tests.pipelines.following.videos import crossing


@pytest.mark.slow
def test_an_object_is_followed_and_drawn_from_the_command_line(tmp_path: Path) -> None:
    scene, out = crossing(tmp_path / "v.mp4"), str(tmp_path / "followed")
    job = [sys.executable, "-m", "jobs.track", "--video", str(scene.path), "--output", out, "--stride", "4"]
    prompts = ["--prompt", scene.prompt(12), "--prompt", scene.prompt(8, 1, "moon")]
    done = subprocess.run([*job, *prompts], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second, last = done.stdout.splitlines()
    assert first == "track 0: my star: 6 of 6 frames, 0 to 20, from frame 12"
    assert second.startswith("track 1: moon: ")
    assert last.startswith("6 frames in ")
    assert sorted(read_tracks(out)["category"].to_pylist()) == ["moon", "my star"]
    draw = [sys.executable, "-m", "jobs.render", "--video", str(scene.path), "--labels", out]
    drawn = subprocess.run([*draw, "--output", str(tmp_path / "drawn.mp4")], capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stderr
    assert "2 tracks" in drawn.stdout


@pytest.mark.parametrize(
    ("prompts", "error"),
    [
        (
            [],
            "track: error: prompt: missing; give one as --prompt '0.5s: box 10 20 200 180 = my cup', or --prompts FILE",
        ),
        (["--prompt", "1s: box 1 2"], "track: error: prompt: '1s: box 1 2': 'box 1 2' is not understood; write box"),
        (["--prompt", "1s: point 1 2", "--prompt", "so"], "track: error: prompt 2: 'so' is not TIME: WHERE = NAME"),
        (["--prompt", "1s: point 1 2", "--video", "absent.mp4"], "track: error: video: absent.mp4 does not exist"),
        (["--prompt", "1s: point 1 2", "--prompts", "absent.txt"], "track: error: prompts: absent.txt does not exist"),
    ],
)
def test_bad_input_is_one_line(
    prompts: list[str], error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "v.mp4").touch()
    assert main(["--video", str(tmp_path / "v.mp4"), "--output", str(tmp_path / "out"), *prompts]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(error)


def test_prompts_may_be_in_a_yaml_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.yaml").write_text(
        "prompt:\n  - '1s: point 1 2 = a'\n  - '2s: point 3 4'\nvideo: v.mp4\noutput: o\n"
    )
    with pytest.raises(SystemExit):
        main(["--config", str(tmp_path / "job.yaml"), "--print_config"])
    assert "prompt:\n- '1s: point 1 2 = a'\n- '2s: point 3 4'\n" in capsys.readouterr().out
