"""Entries one by one; tests/pipelines/datasets/test_burst_files.py has whole files."""

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from pipelines.datasets.annotations import Mask
from pipelines.datasets.burst_entries import BurstReader

FULL = {"rle": coco.encode(np.ones((2, 3), np.uint8, order="F"))["counts"].decode()}


def entry(**changes: Any) -> dict[str, Any]:
    """A sequence of two frames of 2 x 3 pixels, with one track, of category 13, in the first of them."""
    return {
        "dataset": "AVA",
        "seq_name": "a",
        "height": 2,
        "width": 3,
        "annotated_image_paths": ["frame0007.jpg", "frame0009.jpg"],
        "neg_category_ids": [5],
        "not_exhaustive_category_ids": [],
        "track_category_ids": {"4": 13},
        "segmentations": [{"4": FULL}, {}],
    } | changes


@pytest.fixture
def reader() -> BurstReader:
    return BurstReader("file.json", False)


def test_odd_entries_are_counted_or_refused(reader: BurstReader) -> None:
    reader.tolerate("holes", "track 4", "has a hole; fill it")
    reader.tolerate("holes", "track 5", "has a hole; fill it")
    assert reader.warnings == {"holes": 2}
    with pytest.raises(ValueError, match="file.json: track 4: has a hole; fill it"):
        BurstReader("file.json", True).tolerate("holes", "track 4", "has a hole; fill it")


@pytest.mark.parametrize("item", [{"height": True}, {"height": "2"}, {}, [2], None])
def test_values_have_types(reader: BurstReader, item: Any) -> None:
    with pytest.raises(ValueError, match="file.json: here: height is '.*'; give a int"):
        reader.get(item, "height", int, "here")
    assert reader.get({"height": 2}, "height", int, "here") == 2


@pytest.mark.parametrize(
    ("path", "time"), [("frame0007.jpg", 7), ("b/clip_3_000012.png", 12), ("frame10.png", 10), ("5.jpg", 5)]
)
def test_the_time_of_a_frame_is_in_its_name(reader: BurstReader, path: str, time: int) -> None:
    sequence = reader.sequence(entry(annotated_image_paths=[path, "frame0099.jpg"]), "val")
    assert sequence.times.tolist() == [time, 99]


def test_categories_of_objects_are_those_of_their_tracks(reader: BurstReader) -> None:
    """As numbers or as texts; of predictions a mask's own comes first, and texts are none."""
    objects = {"track_category_ids": {"4": "13"}, "segmentations": [{"4": FULL | {"category_id": 7}}, {}]}
    sequence = reader.sequence(entry(**objects), "val")
    assert (sequence.name, sequence.objects.category_id.tolist(), sequence.objects.score.tolist()) == (
        "val/AVA/a",
        [13],
        [1],
    )
    assert reader.predictions([entry(**objects)], sequence).category_id.tolist() == [7]
    with pytest.raises(ValueError, match="track 4: category is '13'; give an id"):
        reader.predictions([entry(track_category_ids={"4": "13"})], sequence)


def test_predictions_are_placed_by_the_paths_of_frames(reader: BurstReader) -> None:
    """Whatever their order, and without those that are not annotated; a score that is missing is 1."""
    sequence = reader.sequence(entry(), "val")
    paths = {"annotated_image_paths": ["frame0008.jpg", "frame0009.jpg", "frame0007.jpg"]}
    masks = {"segmentations": [{"4": FULL}, {"4": FULL | {"score": 0.25}}, {"4": FULL}]}
    rows = reader.predictions([entry(**paths, **masks)], sequence)
    assert (rows.frame.tolist(), rows.score.tolist()) == ([1, 0], [0.25, 1])
    assert reader.warnings == {"missing_scores": 2}
    assert len(reader.predictions([], sequence)) == 0
    assert reader.warnings["missing_sequences"] == 1


def test_areas(reader: BurstReader) -> None:
    """The mask that is broken is named."""
    full = Mask(2, 3, FULL["rle"].encode())
    assert reader.read([full, full], ["here", "there"].__getitem__).areas.tolist() == [6, 6]
    with pytest.raises(ValueError, match="file.json: there: rle: counts .* 2 \\* 3, got 0 .*; write the file again"):
        reader.read([full, Mask(2, 3, b"0")], ["here", "there"].__getitem__)
