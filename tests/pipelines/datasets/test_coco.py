import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from openvis_model import rle
from pipelines.datasets.annotations import Category, Federation, Mask
from pipelines.datasets.coco import read_ground_truth
from tests.pipelines.datasets.training_sets import (
    HEIGHT,
    WIDTH,
    box,
    image_document,
    lvis_document,
    run_lengths,
    write_json,
)


def dense(mask: Mask | None) -> np.ndarray:
    assert mask is not None
    return rle.decode((mask.height, mask.width), mask.counts)


def test_images_are_videos_of_one_frame(tmp_path: Path) -> None:
    truth = read_ground_truth(write_json(tmp_path / "a.json", image_document()))
    assert [(v.id, v.height, v.width, v.length, v.file_names, v.video) for v in truth.videos] == [
        (5, HEIGHT, WIDTH, 1, ("0005.png",), None),
        (6, HEIGHT, WIDTH, 1, ("0006.png",), None),
    ]
    assert truth.categories[1] == Category(id=9, name="odd thing", partition=3)
    assert [(t.id, t.video_id, t.category_id, t.crowd, t.areas) for t in truth.tracks] == [
        (1, 5, 7, False, (320.0,)),
        (2, 5, 11, False, (320.0,)),
        (3, 5, 7, True, (320.0,)),
        (4, 6, 7, False, (320.0,)),
    ]


def test_polygons_and_both_kinds_of_run_lengths(tmp_path: Path) -> None:
    truth = read_ground_truth(write_json(tmp_path / "a.json", image_document()))
    boxes = [box(8, 4, 20, 16), box(40, 60, 16, 20), box(0, 30, 4, 4), box(8, 4, 20, 16)]
    for track, expected in zip(truth.tracks, boxes, strict=True):
        assert np.array_equal(dense(track.masks[0]), expected)


def test_parts_of_an_object_are_one_mask(tmp_path: Path) -> None:
    document = image_document()
    document["annotations"][0]["segmentation"].append([40, 8, 50, 8, 50, 18, 40, 18])
    truth = read_ground_truth(write_json(tmp_path / "a.json", document))
    assert np.array_equal(dense(truth.tracks[0].masks[0]), box(8, 4, 20, 16) | box(8, 40, 10, 10))


def test_lvis_as_it_is_published(tmp_path: Path) -> None:
    truth = read_ground_truth(write_json(tmp_path / "a.json", lvis_document()))
    assert [video.file_names for video in truth.videos] == [("train2017/0005.png",), ("train2017/0006.png",)]
    assert [video.federation for video in truth.videos] == [Federation(absent=(9,), partial=(11,)), Federation()]
    assert [(category.id, category.name) for category in truth.categories] == [
        (7, "red_box"),
        (9, "odd thing"),
        (11, "blue_box"),
    ]
    assert [(track.id, track.crowd) for track in truth.tracks] == [(1, False), (2, False), (4, False)]


def test_only_federated_images_say_what_is_known(tmp_path: Path) -> None:
    truth = read_ground_truth(write_json(tmp_path / "a.json", image_document()))
    assert [video.federation for video in truth.videos] == [None, None]


def test_categories_of_a_federated_image_by_odd_ids(tmp_path: Path) -> None:
    document = lvis_document()
    for category in document["categories"]:
        category["id"] = str(category["id"])
    for annotation in document["annotations"]:
        annotation["category_id"] = str(annotation["category_id"])
    document["images"][0] |= {"neg_category_ids": ["9"], "not_exhaustive_category_ids": ["11"]}
    truth = read_ground_truth(write_json(tmp_path / "a.json", document))
    names = {category.id: category.name for category in truth.categories}
    federation = truth.videos[0].federation
    assert federation is not None
    assert [names[number] for number in federation.absent + federation.partial] == ["odd thing", "blue_box"]


LVIS_CASES: list[tuple[dict[str, Any], str]] = [
    ({"coco_url": "http://images.cocodataset.org/"}, r"image 6 has 'coco_url' 'http.*'; give an address that ends in"),
    ({"coco_url": 5}, r"image 6 has 'coco_url' 5; give a text"),
    ({"neg_category_ids": [9, 50]}, r"image 6 has 50 among its neg_category_ids, which is not in the file; add"),
    ({"neg_category_ids": None}, r"image 6 has 'neg_category_ids' None; give a list"),
    ({"not_exhaustive_category_ids": [[9]]}, r"image 6 has \[9\] among its not_exhaustive_category_ids, which"),
]


@pytest.mark.parametrize(("change", "message"), LVIS_CASES)
def test_what_is_wrong_with_a_federated_image_is_named(change: Any, message: str, tmp_path: Path) -> None:
    document = lvis_document()
    document["images"][1] |= change
    with pytest.raises(ValueError, match=f"a.json: {message}"):
        read_ground_truth(write_json(tmp_path / "a.json", document))


def test_an_image_without_a_file(tmp_path: Path) -> None:
    document = lvis_document()
    del document["images"][0]["coco_url"]
    with pytest.raises(ValueError, match="image 5 has no 'file_name'; add it"):
        read_ground_truth(write_json(tmp_path / "a.json", document))


CASES: list[tuple[str, int, dict[str, Any], str]] = [
    ("images", 0, {"height": 0}, r"image 5 is 0 x 96"),
    ("images", 1, {"file_name": None}, r"image 6 has 'file_name' None; give a text"),
    ("images", 1, {"id": 5}, r"image id 5 occurs more than once"),
    ("categories", 1, {"id": 7}, r"category id 7 occurs more than once"),
    ("categories", 0, {"name": 3}, r"category 7 has 'name' 3"),
    ("annotations", 3, {"id": 1}, r"annotation id 1 occurs more than once"),
    ("annotations", 1, {"image_id": 50}, r"annotation 2 has 'image_id' 50, which is not in the file"),
    ("annotations", 1, {"category_id": 8}, r"annotation 2 has 'category_id' 8, which is not in the file"),
    ("annotations", 1, {"area": -1}, r"annotation 2 has the area -1"),
    ("annotations", 1, {"area": math.inf}, r"annotation 2 has the area inf"),
    ("annotations", 1, {"id": "x"}, r"annotation entry 1 has 'id' 'x', at which official tools stop"),
    ("annotations", 1, {"area": "x"}, r"annotation 2 has 'area' 'x'; give a number"),
    ("annotations", 1, {"iscrowd": 2}, r"annotation 2 has iscrowd 2; give 0 or 1"),
    ("annotations", 0, {"segmentation": [[1, 2, 3, 4]]}, r"annotation 1, frame 0, has \[\[1, 2, 3, 4\]\]"),
    ("annotations", 2, {"segmentation": {"size": [64, 96], "counts": [5, 7]}}, r"annotation 3, .* add up to 64 \* 96"),
    ("annotations", 1, {"segmentation": {"size": [64, 96], "counts": "a"}}, r"annotation 2, frame 0, counts "),
    ("annotations", 1, {"segmentation": run_lengths(np.ones((9, 9)))}, r"annotation 2, frame 0, is 9 x 9, but"),
]


@pytest.mark.parametrize(("part", "entry", "change", "message"), CASES)
def test_what_is_wrong_is_named(part: str, entry: int, change: Any, message: str, tmp_path: Path) -> None:
    document = image_document()
    document[part] = copy.deepcopy(document[part])
    document[part][entry] |= change
    path = write_json(tmp_path / "a.json", document)
    with pytest.raises(ValueError, match=f"a.json: {message}"):
        read_ground_truth(path)
    problems: list[str] = []
    read_ground_truth(path, problems=problems)
    assert len(problems) == 1


@pytest.mark.parametrize("kind", [str, lambda number: number + 0.5])
def test_ids_are_what_pycocotools_takes_for_ids(kind: Callable[[int], Any], tmp_path: Path) -> None:
    plain, document = image_document(), copy.deepcopy(image_document())
    for each in document["images"] + document["categories"]:
        each["id"] = kind(each["id"])
    for each in document["annotations"]:
        each |= {name: kind(each[name]) for name in ("image_id", "category_id")}
        each |= {"id": each["id"] + 0.5, "iscrowd": bool(each["iscrowd"]), "area": math.nan}
    truth = read_ground_truth(write_json(tmp_path / "a.json", document))
    expected = read_ground_truth(write_json(tmp_path / "b.json", plain))
    images = COCO(tmp_path / "a.json")
    files = {video.id: video.file_names[0] for video in truth.videos}
    names = {category.id: category.name for category in truth.categories}
    for track, entry, other in zip(truth.tracks, document["annotations"], expected.tracks, strict=True):
        assert (track.id, track.crowd, track.masks) == (entry["id"], other.crowd, other.masks)
        assert files[track.video_id] == images.imgs[entry["image_id"]]["file_name"]
        assert names[track.category_id] == images.cats[entry["category_id"]]["name"]


def test_category_ids_may_begin_at_0(tmp_path: Path) -> None:
    """As Roboflow, supervision and Label Studio write them."""
    document = image_document()
    document["categories"] = [each | {"id": number} for number, each in enumerate(document["categories"])]
    document["annotations"] = [each | {"category_id": 0} for each in document["annotations"]]
    truth = read_ground_truth(write_json(tmp_path / "a.json", document))
    assert [category.id for category in truth.categories] == [0, 1, 2]
    assert {track.category_id for track in truth.tracks} == {0}


def test_boxes_alone_are_not_enough(tmp_path: Path) -> None:
    document = image_document()
    del document["annotations"][0]["segmentation"]
    with pytest.raises(ValueError, match="annotation 1 has no 'segmentation'; give instance annotations"):
        read_ground_truth(write_json(tmp_path / "a.json", document))


def test_a_file_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the file holds a list"):
        read_ground_truth(write_json(tmp_path / "a.json", []))
    with pytest.raises(ValueError, match="the file has no list 'images'"):
        read_ground_truth(write_json(tmp_path / "a.json", {}))


def test_problems_of_several_entries_are_collected(tmp_path: Path) -> None:
    document = image_document()
    document["annotations"][0]["category_id"] = 8
    document["annotations"][1]["segmentation"] = {"size": [64, 96], "counts": "a"}
    problems: list[str] = []
    truth = read_ground_truth(write_json(tmp_path / "a.json", document), problems=problems)
    assert [track.id for track in truth.tracks] == [3, 4]
    assert len(problems) == 2
    assert "annotation 1 " in problems[0]
    assert "annotation 2, frame 0," in problems[1]
