import json
from functools import partial
from pathlib import Path

import pytest

from jobs.make_shapes import main
from tests.jobs.in_process import run

make_shapes = partial(run, main)


def test_makes_a_split(tmp_path: Path) -> None:
    format_ = ("--frames", "4", "--height", "64", "--width", "80", "--fps", "5")
    done = make_shapes("--output", tmp_path, "--split", "novel", "--videos", "3", "--seed", "2", *format_)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "novel" / "instances.json").read_text())
    videos = document["videos"]
    assert [(v["length"], v["height"], v["width"], v["fps"]) for v in videos] == [(4, 64, 80, 5)] * 3
    assert all((tmp_path / "novel" / video["video"]).is_file() for video in videos)
    assert "novel: 3/3 videos" in done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'novel'}: 3 videos, 12 frames, {len(document['annotations'])} tracks")
    assert done.stdout.count("\n") == 1


def test_refuses_to_overwrite(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "notes.txt").write_text("mine")
    done = make_shapes("--output", tmp_path, "--split", "train", "--videos", "1")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "is not an empty folder; remove it or choose another output" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--split", "test", "--videos", "1"),
            "crossing or crossing_train, got test",
        ),
        (("--split", "train"), "videos: missing"),
        (("--split", "train", "--videos", "many"), "videos: expected int, got many"),
        (("--split", "train", "--videos", "0"), "videos: must be at least 1, got 0"),
        (("--split", "train", "--videos", "1", "--width", "8"), "width: must be at least 32, got 8"),
        (("--split", "train", "--videos", "1", "--size", "8"), "size: no such option"),
    ],
)
def test_bad_arguments(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = make_shapes("--output", tmp_path / "output", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not (tmp_path / "output").exists()


def test_help_explains_the_splits() -> None:
    done = make_shapes("--help")
    assert done.returncode == 0
    for text in ("--output OUTPUT", "default: 24", "novel           200 categories that training never shows"):
        assert text in done.stdout
