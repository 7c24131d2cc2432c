from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from jobs.render import main
from openvis_model import rle
from pipelines.archive.parts import Rows
from pipelines.archive.tables import Results
from pipelines.shapes.files import encode_video
from pipelines.storage import s3
from pipelines.storage.files import Storage
from pipelines.storage.objects import local_copy
from tests.jobs import in_process
from tests.pipelines.archive.labels import part_name

NUMBERS = count()


run = partial(in_process.run, main)


def refused(message: str, *arguments: str | Path) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("render: error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def write(labels: Path, **tables: list[dict[str, Any]]) -> None:
    for video in tables["videos"]:
        part = Rows()
        for table, rows in tables.items():
            part.add(table, [row for row in rows if row["video_id"] == video["video_id"]])
        part.put(Storage(str(labels)), part_name(1, next(NUMBERS)))


@pytest.fixture(scope="module", name="folder")
def label(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """v.mp4 with two tracks, 12 grey frames; labels of it, of a failed video, and of six that are gone."""
    folder = tmp_path_factory.mktemp("render")
    encode_video(folder / "v.mp4", np.full((12, 400, 480, 3), 90, np.uint8), 8)
    encode_video(folder / "other.mp4", np.full((2, 400, 480, 3), 90, np.uint8), 8)
    (folder / "failed.mp4").write_text("junk")
    masks = torch.zeros(2, 400, 480, dtype=torch.bool)
    masks[0, 100:200, 50:150] = masks[1, 100:200, 300:400] = True
    encoded = rle.encode(masks).to_coco()
    rles = [{"size": each["size"], "counts": each["counts"].decode()} for each in encoded]
    rows: list[dict[str, Any]] = [
        {"video_id": "v", "track_id": i, "frame": frame, "time_s": frame / 8, "rle": rles[i]}
        for frame in range(12)
        for i in range(2)
    ]
    tracks = [{"video_id": "v", "track_id": i, "category": "cup", "score": 0.8 - 0.5 * i} for i in range(2)]
    here = folder.resolve()
    videos = [
        {"video_id": "v", "uri": str(here / "v.mp4"), "status": "ok"},
        {"video_id": "f", "uri": str(here / "failed.mp4"), "status": "failed", "error": "no\npicture in it"},
    ]
    write(folder / "labels", videos=videos, tracks=tracks, masks=rows)
    gone = [{"video_id": f"g{i}", "uri": f"/gone/{i}.mp4", "status": "ok"} for i in range(6)]
    write(folder / "labels", videos=gone)
    return folder


def drawn(path: Path) -> list[int]:
    """Which of the two tracks a video shows in its last frame."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert len(frames) == 12
    return [i for i, x in enumerate((100, 350)) if np.abs(frames[-1][150, x] - 90).max() > 30]


def test_renders_video_and_sheet(folder: Path, tmp_path: Path) -> None:
    output, sheet = tmp_path / "new" / "x.mp4", tmp_path / "x.png"
    relative = folder / "labels" / ".." / "v.mp4"
    done = run("--video", relative, "--labels", folder / "labels", "--output", output, "--sheet", sheet)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{output}: 12 frames of 480 × 400 pixels, 2 tracks in ")
    assert (done.stdout.count("\n"), done.stderr) == (1, "12/12 frames\n")
    assert drawn(output) == [0, 1]
    with Image.open(sheet) as image:
        assert image.size == (12 + 4 * 492, 12 + 3 * (400 + 42))


def test_tracks_are_selected_and_the_id_finds_a_moved_video(folder: Path, tmp_path: Path) -> None:
    common = ("--labels", folder / "labels", "--output", tmp_path / "x.mp4")
    assert run("--video", folder / "v.mp4", *common, "--min_score", "0.5").returncode == 0
    assert drawn(tmp_path / "x.mp4") == [0]
    (tmp_path / "moved.mp4").write_bytes((folder / "v.mp4").read_bytes())
    done = run("--video", tmp_path / "moved.mp4", "--video_id", "v", *common, "--most", "1")
    assert done.returncode == 0, done.stderr
    assert drawn(tmp_path / "x.mp4") == [0]


def test_on_s3_as_in_folders(folder: Path, bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    for file in ("v.mp4", "failed.mp4"):
        s3.upload(folder / file, f"{bucket}/videos/{file}")
    results = Results(Storage(str(folder / "labels")))
    videos = [row | {"uri": f"{bucket}/videos/{row['video_id']}.mp4"} for row in results.read("videos").to_pylist()]
    part = Rows()
    part.add("videos", videos)
    for table in ("tracks", "masks"):
        part.add_table(table, results.read(table))
    part.put(Storage(f"{bucket}/labels"), part_name(1))
    options = ["--labels", f"{bucket}/labels", "--output", f"{bucket}/new/x.mp4", "--sheet", f"{bucket}/new/x.png"]
    assert main(["--video", f"{bucket}/videos/v.mp4", *options]) == 0
    assert capsys.readouterr().out.startswith(f"{bucket}/new/x.mp4: 12 frames of 480 × 400 pixels, 2 tracks in ")
    with local_copy(f"{bucket}/new/x.mp4") as copy, local_copy(f"{bucket}/new/x.png") as sheet:
        assert drawn(copy) == [0, 1]
        assert sheet.read_bytes().startswith(b"\x89PNG")
    refused(
        f"labels: {bucket}/labels has no video {bucket}/videos/w.mp4; it has",
        "--video",
        f"{bucket}/videos/w.mp4",
        *options,
    )
    refused("could not be labelled (no picture in it)", "--video", f"{bucket}/videos/f.mp4", *options)
    itself = ("--video", f"{bucket}/videos/v.mp4", *options[:2])
    refused("output: s3://", *itself, "--output", f"{bucket}/videos/v.mp4")
    refused("sheet: cannot write to", *itself, "--output", "x.mp4", "--sheet", f"{bucket}x/x.png")
    refused("names no file", *itself, "--output", "s3://a.mp4")
    s3.remove(f"{bucket}/videos/v.mp4")
    refused(f"video: cannot read {bucket}/videos/v.mp4", *itself, "--output", f"{bucket}/new/x.mp4")
    absent = f"{bucket}x/x.mp4"
    refused("output: cannot write to", "--video", f"{bucket}/videos/v.mp4", *options[:2], "--output", absent)


def test_what_cannot_be_found_is_named(folder: Path, tmp_path: Path) -> None:
    labels, output = ("--labels", folder / "labels"), ("--output", tmp_path / "x.mp4")
    video = ("--video", folder / "v.mp4")
    refused("none.mp4 does not exist", "--video", tmp_path / "none.mp4", *labels, *output)
    refused("none does not exist", *video, "--labels", tmp_path / "none", *output)
    refused(f"{tmp_path} has no labels", *video, "--labels", tmp_path, *output)
    refused("no video_id w; it has ", *video, *labels, *output, "--video_id", "w")
    done = run("--video", folder / "other.mp4", *labels, *output)
    assert done.returncode == 2
    assert f"has no video {folder / 'other.mp4'}; it has {folder.resolve() / 'failed.mp4'} (f), " in done.stderr
    assert done.stderr.endswith("/gone/3.mp4 (g3) and 3 more\n")
    refused("failed.mp4 could not be labelled (no picture in it)", "--video", folder / "failed.mp4", *labels, *output)
    assert not list(tmp_path.iterdir())


def test_a_video_that_was_labelled_twice_needs_its_id(folder: Path, tmp_path: Path) -> None:
    twice = [{"video_id": each, "uri": str(folder.resolve() / "v.mp4"), "status": "ok"} for each in ("p", "q")]
    write(tmp_path / "labels", videos=twice)
    common = ("--video", folder / "v.mp4", "--labels", tmp_path / "labels", "--output", tmp_path / "x.mp4")
    refused("2 times; choose one with --video_id: p, q", *common)
    assert run(*common, "--video_id", "q").returncode == 0
    assert drawn(tmp_path / "x.mp4") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--output", "x.avi"), "output: x.avi must end with .mp4"),
        (("--output", "{}/v.mp4/x.mp4"), "v.mp4/x.mp4 ("),
        (("--output", "{}/v.mp4"), "is the video itself"),
        (("--output", "file://{}/v.mp4"), "is the video itself"),
        (("--output", "ftp://bucket/x.mp4"), "ftp://bucket: its scheme is unknown; give local folders, s3://"),
        (("--output", "x.mp4", "--sheet", "x.gif"), "sheet: x.gif must end with .png"),
        (("--output", "x.mp4", "--min_score", "2"), "min_score: expected 0 to 1, got 2.0"),
        (("--output", "x.mp4", "--most", "0"), "most: expected at least 1, got 0"),
        ((), "output: missing"),
        (("--output", "x.mp4", "--fps", "3"), "fps: no such option"),
    ],
)
def test_bad_arguments(arguments: tuple[str, ...], message: str, folder: Path) -> None:
    there = [each.replace("{}", str(folder)) for each in arguments]
    refused(message, "--video", folder / "v.mp4", "--labels", folder / "labels", *there)
    assert not Path("x.mp4").exists()


def test_help_explains() -> None:
    done = run("--help")
    assert done.returncode == 0
    for text in ("--sheet", "absolute path", "masks of the last labelled one"):
        assert text in done.stdout
