import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from pycocotools import mask as coco

from pipelines.shapes.categories import BASE, CATEGORIES
from pipelines.shapes.files import SplitSummary, write_split
from pipelines.shapes.render import render
from pipelines.shapes.scenes import SceneConfig, Split

CONFIG = SceneConfig(frames=10)
VIDEOS = 6


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module", name="written")
def write_hard(tmp_path_factory: pytest.TempPathFactory) -> SplitSummary:
    return write_split(tmp_path_factory.mktemp("shapes"), "hard", VIDEOS, 7, CONFIG)


@pytest.fixture(scope="module", name="document")
def load(written: SplitSummary) -> Any:
    return json.loads((written.path / "instances.json").read_text())


def test_annotations_are_the_rendered_masks(document: dict[str, Any]) -> None:
    assert [video["id"] for video in document["videos"]] == list(range(1, VIDEOS + 1))
    assert [each["id"] for each in document["annotations"]] == list(range(1, len(document["annotations"]) + 1))
    for index, video in enumerate(document["videos"]):
        clip = render(CONFIG, "hard", 7, index)
        tracks = [each for each in document["annotations"] if each["video_id"] == video["id"]]
        assert [track["category_id"] - 1 for track in tracks] == list(clip.categories)
        for track, masks in zip(tracks, clip.masks, strict=True):
            assert (track["height"], track["width"], track["length"], track["iscrowd"]) == (96, 128, 10, 0)
            columns = (track["segmentations"], track["bboxes"], track["areas"])
            for mask, segmentation, box, area in zip(masks, *columns, strict=True):
                if not mask.any():
                    assert segmentation is box is area is None
                    continue
                assert (coco.decode(segmentation) == mask).all()
                assert area == mask.sum()
                assert box == coco.toBbox(segmentation).tolist()


def test_videos_and_categories_are_listed(written: SplitSummary, document: dict[str, Any]) -> None:
    assert set(document) == {"info", "videos", "categories", "annotations"}
    video = document["videos"][3]
    assert video["video"] == "videos/hard-7-00003.mp4"
    assert video["file_names"] == [f"hard-7-00003/{frame:05}.jpg" for frame in range(10)]
    assert (video["height"], video["width"], video["length"], video["fps"]) == (96, 128, 10, 8)
    assert {each["video"] for each in document["videos"]} == {n for n in files(written.path) if n.endswith(".mp4")}

    names = (written.path / "vocabulary.txt").read_text().splitlines()
    assert names == [category.name for category in CATEGORIES]
    assert [(each["id"], each["name"]) for each in document["categories"]] == list(enumerate(names, start=1))
    base = [each["id"] - 1 for each in document["categories"] if each["partition"] == 1]
    assert tuple(base) == BASE
    assert {each["partition"] for each in document["categories"]} == {1, 3}


def test_summary_counts(written: SplitSummary, document: dict[str, Any]) -> None:
    masks = [mask for each in document["annotations"] for mask in each["segmentations"] if mask]
    assert (written.videos, written.tracks, written.masks) == (VIDEOS, len(document["annotations"]), len(masks))


def test_videos_decode_to_the_rendered_frames(written: SplitSummary, document: dict[str, Any]) -> None:
    for index, video in enumerate(document["videos"]):
        path, frames = str(written.path / video["video"]), render(CONFIG, "hard", 7, index).frames
        with av.open(path) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
            assert stream.average_rate == 8
            by_av = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        assert by_av.shape == frames.shape
        assert np.abs(by_av.astype(int) - frames).mean() < 4


def test_files_do_not_depend_on_processes_or_on_the_number_of_videos(written: SplitSummary, tmp_path: Path) -> None:
    again = write_split(tmp_path / "again", "hard", VIDEOS, 7, CONFIG, processes=2)
    assert files(again.path) == files(written.path)
    fewer = write_split(tmp_path / "fewer", "hard", 2, 7, CONFIG)
    videos = {name: content for name, content in files(fewer.path).items() if name.endswith(".mp4")}
    assert len(videos) == 2
    assert videos.items() <= files(written.path).items()


def test_splits_live_side_by_side_and_progress_is_reported(tmp_path: Path) -> None:
    done: list[int] = []
    config = SceneConfig(frames=2)
    (tmp_path / "valid").mkdir()  # an empty folder is no obstacle
    write_split(tmp_path, "train", 3, 0, config, progress=done.append)
    write_split(tmp_path, "valid", 1, 0, config)
    assert done == [1, 2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train", "valid"]


def test_a_failed_run_leaves_nothing_and_a_killed_one_is_no_obstacle(tmp_path: Path) -> None:
    def fail(done: int) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_split(tmp_path, "train", 2, 0, SceneConfig(frames=2), progress=fail)
    assert not list(tmp_path.iterdir())

    (tmp_path / ".train.0.partial" / "videos").mkdir(parents=True)
    (tmp_path / ".train.0.partial" / "videos" / "junk.mp4").write_text("half a video")
    summary = write_split(tmp_path, "train", 1, 0, SceneConfig(frames=2))
    assert sorted(files(summary.path)) == ["instances.json", "videos/train-0-00000.mp4", "vocabulary.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_what_is_there_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"output: .*train exists and is not an empty folder"):
        write_split(tmp_path, "train", 1, 0, CONFIG)
    assert files(tmp_path) == {"train/notes.txt": b"mine"}


def test_a_second_run_leaves_the_draft_of_the_first_alone(tmp_path: Path) -> None:
    drafts: list[list[Path]] = []

    def start_another(done: int) -> None:
        with pytest.raises(ValueError, match="output: another run is writing the split at "):
            write_split(tmp_path, "train", 1, 0, CONFIG)
        drafts.append(list(tmp_path.glob(".train.*.partial")))

    write_split(tmp_path, "train", 1, 0, CONFIG, progress=start_another)
    assert len(drafts[0]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"videos": 0}, "videos: must be at least 1, got 0"),
        ({"seed": -1}, "seed: must be at least 0, got -1"),
        ({"processes": 0}, "processes: must be at least 1, got 0"),
        ({"split": "test"}, "split: unknown value 'test'"),
        ({"config": SceneConfig(height=97)}, "height and width: H.264 needs even numbers, got 97 and 128"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    split: Split = "train"
    arguments = {"output": tmp_path, "split": split, "videos": 1, "seed": 0, "config": CONFIG, **change}
    with pytest.raises(ValueError, match=message):
        write_split(**arguments)
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"output: cannot make .*file \(File exists\)"):
        write_split(tmp_path / "file", "train", 1, 0, CONFIG)
