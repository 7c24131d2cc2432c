import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from pipelines.datasets.annotations import Federation
from pipelines.shapes.categories import BASE, CATEGORIES
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from pipelines.training.checks import open_training_data
from pipelines.training.data import TrainingData, TrainingDataConfig
from tests.pipelines.datasets.training_sets import (
    HEIGHT,
    WIDTH,
    box,
    image_document,
    lvis_document,
    paint,
    run_lengths,
    scene,
    video_document,
    write_images,
    write_json,
    write_videos,
)
from tests.pipelines.video.clips import cut_off, write_clip, write_image

SCENES = SceneConfig(frames=5)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split(tmp_path_factory.mktemp("shapes"), "train", 3, 0, SCENES).path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos as folders of images, with `annotations.json`."""
    write_videos(tmp_path)
    write_json(tmp_path / "annotations.json", video_document())
    return tmp_path


def opened(path: Path, **changes: Any) -> TrainingData:
    return open_training_data(TrainingDataConfig(annotations=str(path), height=64, width=96, **changes))


def problems(path: Path, **changes: Any) -> list[str]:
    """What is wrong, as the error lists it."""
    with pytest.raises(ValueError, match=r"annotations: \d+ problem") as error:
        opened(path, **changes)
    head, *listed = str(error.value).split("\n  ")
    assert re.match(r"annotations: (\d+) problem", head).group(1) == str(len(listed)) or "the first 10" in head  # type: ignore[union-attr]
    return listed


def dense(data: TrainingData, track: int, frame: int) -> np.ndarray | None:
    counts = data.tracks.counts(track, frame)
    video = data.videos[int(np.searchsorted(data.tracks.first_track, track, side="right")) - 1]
    return None if counts is None else coco.decode({"size": [video.height, video.width], "counts": counts})


# What is read


def test_folders_of_images(folder: Path) -> None:
    data = opened(folder / "annotations.json")
    assert data.names == ("red box", "blue box")
    assert [(v.id, v.height, v.width, v.length, v.plan) for v in data.videos] == [
        (1, HEIGHT, WIDTH, 6, None),
        (2, HEIGHT, WIDTH, 6, None),
    ]
    assert data.videos[1].files == tuple(str(folder / "v2" / f"{t:03}.png") for t in range(6))
    assert data.tracks.categories.tolist() == [0, 1, 0, 1]
    assert [list(data.tracks.tracks(video)) for video in (0, 1)] == [[0, 1], [2, 3]]
    assert data.tracks.shown(1).tolist() == list(range(6))
    for t in range(6):
        assert np.array_equal(dense(data, 2, t), scene(t)[0])
    assert [t for t in range(6) if data.tracks.counts(3, t)] == [1, 2]


def test_encoded_videos(shapes: Path) -> None:
    data = opened(shapes / "instances.json")
    document = json.loads((shapes / "instances.json").read_text())
    assert data.names == tuple(CATEGORIES[number].name for number in BASE)
    assert [video.files for video in data.videos] == [(str(shapes / each["video"]),) for each in document["videos"]]
    assert all(video.plan is not None for video in data.videos)
    assert len(data.tracks.categories) == len(document["annotations"])
    for track, annotation in enumerate(document["annotations"]):
        assert data.names[data.tracks.categories[track]] == CATEGORIES[annotation["category_id"] - 1].name
        for t, segmentation in enumerate(annotation["segmentations"]):
            expected = None if segmentation is None else segmentation["counts"].encode()
            assert data.tracks.counts(track, t) == expected
    assert opened(shapes / "instances.json", categories="all").names == tuple(each.name for each in CATEGORIES)


def test_still_images(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    path = Path(write_json(tmp_path / "annotations" / "a.json", image_document()))
    data = opened(path, videos=str(tmp_path / "images"), format="coco", frames=4)
    assert [(video.id, video.files) for video in data.videos] == [
        (5, (str(tmp_path / "images" / "0005.png"),)),
        (6, (str(tmp_path / "images" / "0006.png"),)),
    ]
    assert data.tracks.categories.tolist() == [0, 1, 0]  # without the crowd
    assert data.crowds == 1
    assert np.array_equal(dense(data, 1, 0), box(40, 60, 16, 20))


def test_lvis_below_a_folder_of_images(tmp_path: Path) -> None:
    write_images(tmp_path / "coco" / "train2017")
    path = Path(write_json(tmp_path / "lvis_v1_train.json", lvis_document()))
    data = opened(path, videos=str(tmp_path / "coco"), format="coco")
    assert data.names == ("red box", "odd thing", "blue box")
    assert data.videos[0].files == (str(tmp_path / "coco" / "train2017" / "0005.png"),)
    assert [video.federation for video in data.videos] == [Federation(absent=(1,), partial=(2,)), Federation()]
    assert data.tracks.categories.tolist() == [0, 2, 0]


def test_what_is_known_of_categories_that_are_not_trained_on_is_left_out(tmp_path: Path) -> None:
    write_images(tmp_path / "train2017")
    document = lvis_document() | {"categories": image_document()["categories"]}  # "odd thing" is novel
    data = opened(Path(write_json(tmp_path / "a.json", document)), format="coco")
    assert data.names == ("red box", "blue box")
    assert data.videos[0].federation == Federation(absent=(), partial=(1,))


def test_polygons_without_a_pixel_as_coco_has_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path)
    document = image_document()
    line = [29.65, 38.33, 29.65, 38.33, 30.68, 38.33, 30.68, 38.33]  # the form of annotation 918 of train2017
    document["annotations"][3]["segmentation"] = [line]
    data = opened(Path(write_json(tmp_path / "a.json", document)), format="coco")
    assert (data.empty, data.crowds, data.tracks.categories.tolist()) == (1, 1, [0, 1])
    assert len(data.videos) == 2
    assert "a.json: 1 annotations have no pixel of their image; they are left out" in caplog.text


def burst_document() -> dict[str, Any]:
    """Frames are listed out of order; frame 2 of the folder is not annotated."""
    rle = {
        name: run_lengths(mask)["counts"] for name, mask in (("red", box(8, 4, 20, 16)), ("blue", box(40, 60, 16, 20)))
    }
    return {
        "split": "train",
        "categories": [{"id": 4, "name": "air_box"}, {"id": 10, "name": "ball"}],
        "sequences": [
            {
                "dataset": "AVA",
                "seq_name": "s",
                "height": HEIGHT,
                "width": WIDTH,
                "annotated_image_paths": ["frame_3.png", "frame_1.png"],
                "neg_category_ids": [],
                "not_exhaustive_category_ids": [],
                "track_category_ids": {"1": 10, "2": 4},
                "segmentations": [{"1": {"rle": rle["red"]}, "2": {"rle": rle["blue"]}}, {"1": {"rle": rle["blue"]}}],
            }
        ],
    }


def write_burst(folder: Path, document: dict[str, Any]) -> Path:
    images = folder / "train" / "AVA" / "s"
    images.mkdir(parents=True, exist_ok=True)
    for number in (1, 2, 3):
        write_image(images / f"frame_{number}.png", paint(*scene(number)))
    return Path(write_json(folder / "burst.json", document))


def test_burst_in_order_of_time(tmp_path: Path) -> None:
    data = opened(write_burst(tmp_path, burst_document()), format="burst")
    assert data.names == ("air box", "ball")
    assert [Path(file).name for file in data.videos[0].files] == ["frame_1.png", "frame_3.png"]
    assert data.tracks.categories.tolist() == [1, 0]
    assert np.array_equal(dense(data, 0, 0), box(40, 60, 16, 20))
    assert np.array_equal(dense(data, 0, 1), box(8, 4, 20, 16))
    assert dense(data, 1, 0) is None
    assert np.array_equal(dense(data, 1, 1), box(40, 60, 16, 20))


def test_crowds_are_counted_and_videos_without_objects_kept(folder: Path) -> None:
    document = video_document()
    document["annotations"][2]["iscrowd"] = document["annotations"][3]["iscrowd"] = 1
    document["annotations"][3]["category_id"] = 9  # a novel crowd is no target either
    data = opened(Path(write_json(folder / "a.json", document)))
    assert data.crowds == 2
    assert [video.id for video in data.videos] == [1, 2]
    assert data.tracks.shown(1).tolist() == []


def test_videos_in_another_order_than_tracks(folder: Path) -> None:
    document = video_document()
    document["annotations"].reverse()
    data = opened(Path(write_json(folder / "a.json", document)))
    assert [list(data.tracks.tracks(video)) for video in (0, 1)] == [[0, 1], [2, 3]]
    assert data.tracks.categories.tolist() == [1, 0, 1, 0]
    assert np.array_equal(dense(data, 1, 5), scene(5)[0])


def test_masks_without_pixels_are_absent(folder: Path) -> None:
    document = video_document()
    nothing = run_lengths(np.zeros((HEIGHT, WIDTH), bool))
    document["annotations"][1]["segmentations"][4] = nothing
    data = opened(Path(write_json(folder / "a.json", document)))
    assert [t for t in range(6) if data.tracks.counts(1, t)] == [1, 2]


def test_all_categories(folder: Path) -> None:
    document = video_document()
    document["annotations"][0]["category_id"] = 9
    data = opened(Path(write_json(folder / "a.json", document)), categories="all")
    assert data.names == ("red box", "odd thing", "blue box")
    assert data.tracks.categories.tolist() == [1, 2, 0, 2]


# What is wrong


def test_a_novel_category_is_named(folder: Path) -> None:
    document = video_document()
    document["annotations"][0]["category_id"] = 9
    assert problems(Path(write_json(folder / "a.json", document))) == [
        f"{folder}/a.json: annotation 1 is a 'odd thing', which is novel (partition 3); "
        "remove it, or train with categories: all"
    ]


def test_empty_annotations_are_named(folder: Path) -> None:
    document = video_document()
    document["annotations"][0]["segmentations"] = document["annotations"][0]["areas"] = [None] * 6
    nothing = run_lengths(np.zeros((HEIGHT, WIDTH), bool))
    document["annotations"][3]["segmentations"] = [nothing] * 6
    assert problems(Path(write_json(folder / "a.json", document))) == [
        f"{folder}/a.json: annotation {number} is empty: no frame has a pixel of it; remove it" for number in (1, 4)
    ]


def test_no_annotation_at_all(folder: Path) -> None:
    document = video_document() | {"annotations": []}
    (problem,) = problems(Path(write_json(folder / "a.json", document)))
    assert problem == f"{folder}/a.json: no annotation of an object; give a file with some"


def test_videos_that_are_not_there(folder: Path) -> None:
    shutil.rmtree(folder / "v1")
    (folder / "v2" / "004.png").unlink()
    path = folder / "annotations.json"
    first, second = problems(path)
    assert first.startswith(f"{path}: video 1: videos: {folder}/v1 is missing, video 1;")
    assert second.startswith(f"{path}: video 2: videos: {folder}/v2 lacks 004.png")


def test_an_encoded_video_that_is_not_there(shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes, tmp_path / "copy")
    path = tmp_path / "copy" / "instances.json"
    first, second, third = (tmp_path / "copy" / video["video"] for video in json.loads(path.read_text())["videos"])
    first.unlink()
    second.write_bytes(b"junk" * 100)
    write_clip(third, frames=5, size=(64, 128))
    missing, junk, small = problems(path)
    assert missing.startswith(f"{path}: video 1: videos: {first} is missing, video 1")
    assert junk == f"{path}: video 2, {second}: not a video file"
    assert small == (
        f"{path}: video 3 is annotated as 5 frames of 96 x 128, but {third} has 5 of 64 x 128; give the annotated video"
    )


def test_a_video_of_another_length(shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes, tmp_path / "copy")
    path = tmp_path / "copy" / "instances.json"
    first, second, _ = (tmp_path / "copy" / video["video"] for video in json.loads(path.read_text())["videos"])
    write_clip(first, frames=6)
    write_clip(tmp_path / "whole.mp4", frames=5, options={"g": "1"}, container_options={"movflags": "faststart"})
    cut_off(tmp_path / "whole.mp4", second, 0.7)
    longer, cut = problems(path)
    assert "video 1 is annotated as 5 frames of 96 x 128" in longer
    assert "has 6 of 96 x 128; give" in longer
    assert re.search(r"video 2 is annotated as 5 .* has \d of 96 x 128 and lacks \d; give", cut)


def test_images_of_another_size_and_no_images(folder: Path) -> None:
    write_image(folder / "v1" / "002.png", np.zeros((48, WIDTH, 3), np.uint8))
    (folder / "v2" / "005.png").write_bytes(b"junk")
    size, junk = problems(folder / "annotations.json")
    assert f"video 1 is annotated as 64 x 96, but {folder}/v1/002.png is 48 x 96" in size
    assert f"video 2: {folder}/v2/005.png is not an image that can be read" in junk


def test_a_still_image_that_is_not_there(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "0006.png").unlink()
    (problem,) = problems(Path(write_json(tmp_path / "a.json", image_document())), format="coco")
    assert problem.startswith(f"{tmp_path}/a.json: image 6: {tmp_path}/0006.png is not there; give the folder")


def test_a_video_shorter_than_a_clip(folder: Path) -> None:
    assert problems(folder / "annotations.json", frames=7) == [
        f"{folder}/annotations.json: video {number} has 6 frames, fewer than a clip; lower frames (7)"
        for number in (1, 2)
    ]
    assert len(opened(folder / "annotations.json", frames=6).videos) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_id": 3}, "annotation 2 has 'video_id' 3, which is not in the file"),
        ({"category_id": 8}, "annotation 2 has 'category_id' 8, which is not in the file"),
        ({"segmentations": [{"size": [64, 96], "counts": "a"}] * 6}, "annotation 2, frame 0, counts are truncated"),
        (
            {"segmentations": [{"size": [96, 64], "counts": "Pi1"}] * 6},
            "annotation 2, frame 0, is 96 x 64, but video 1",
        ),
        ({"segmentations": [None] * 5}, "annotation 2 has 5 segmentations, but video 1 has 6 frames"),
    ],
)
def test_annotations_that_do_not_fit(folder: Path, change: dict[str, Any], message: str) -> None:
    document = video_document()
    document["annotations"][1] |= change
    (problem,) = problems(Path(write_json(folder / "a.json", document)))
    assert problem.startswith(f"{folder}/a.json: {message}")


def test_category_names_that_are_no_vocabulary(folder: Path) -> None:
    document = video_document()
    document["categories"] = copy.deepcopy(document["categories"])
    document["categories"][2]["name"] = "red box"
    (problem,) = problems(Path(write_json(folder / "a.json", document)))
    assert problem == f"{folder}/a.json: categories: 7 and 11 are both 'red box'; rename"


def test_problems_of_burst(tmp_path: Path) -> None:
    document = burst_document()
    document["categories"] = document["categories"][:1]
    broken = copy.deepcopy(document["sequences"][0]) | {"seq_name": "t"}
    broken["segmentations"][0]["1"]["rle"] = "a"
    document["sequences"].append(broken)
    rle, category = problems(write_burst(tmp_path, document), format="burst")
    assert rle.startswith(f"{tmp_path}/burst.json: sequence train/AVA/t, frame frame_3.png, track 1: rle: ")
    assert category.startswith(f"{tmp_path}/burst.json: sequence train/AVA/s")
    assert "category 10, which is not in the file" in category


def test_all_problems_are_counted_and_ten_are_named(folder: Path) -> None:
    document = video_document()
    empty = document["annotations"][0] | {"segmentations": [None] * 6}
    document["annotations"] += [empty | {"id": number} for number in range(100, 112)]
    document["annotations"][0] |= {"category_id": 8}
    path = Path(write_json(folder / "a.json", document))
    shutil.rmtree(folder / "v2")
    listed = problems(path)
    assert len(listed) == 10
    assert "annotation 1 has 'category_id' 8" in listed[0]
    with pytest.raises(ValueError, match="annotations: 14 problems, the first 10:"):
        opened(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none.json: cannot be read"):
        opened(tmp_path / "none.json")
