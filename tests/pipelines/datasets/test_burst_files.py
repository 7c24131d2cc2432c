import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from pipelines.datasets.annotations import Category
from pipelines.datasets.burst_files import read_ground_truth
from tests.pipelines.datasets.burst_documents import (
    GROUND_TRUTH,
    HEIGHT,
    WIDTH,
    Edit,
    Files,
    rle,
    rows,
    set_item,
)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def mask(document: dict[str, Any], sequence: int = 1, frame: int = 0, track: str = "4") -> Any:
    return document["sequences"][sequence]["segmentations"][frame][track]


def test_a_ground_truth(files: Files) -> None:
    truth = files.ground_truth()
    kitchen, street = truth.sequences
    assert (truth.split, kitchen.name, street.name) == ("val", "val/AVA/kitchen", "val/BDD/street")
    assert (kitchen.height, kitchen.width, kitchen.times.tolist()) == (HEIGHT, WIDTH, [31, 1])
    assert (kitchen.negative, kitchen.not_exhaustive) == ({5}, {6, 7})
    assert rows(kitchen.objects) == [
        (0, 1, 347, 1, rle(7).encode()),
        (1, 2, 13, 1, rle(9).encode()),
        (1, 1, 347, 1, rle(8).encode()),
    ]
    assert (len(street.objects), street.times.tolist()) == (0, [1])
    assert truth.warnings == {}
    assert len(truth.sha256) == 64


def test_predictions_are_found_by_name_and_path(files: Files) -> None:
    """In the ground truth's order of sequences, its numbers of frames, and the order of the file within a sequence."""
    predictions = files.read()
    kitchen, street = predictions.sequences
    assert rows(kitchen) == [
        (1, 4, 347, 0.25, rle(8).encode()),
        (1, 9, 504, 1, rle(1).encode()),
        (0, 9, 13, 0.75, rle(2).encode()),
    ]
    assert len(street) == 0
    assert predictions.warnings == {}


TOLERATED = [
    ("unknown_sequences", set_item("seq_name", "x", 0), "sequence val/BDD/x: is not in the ground truth"),
    ("missing_sequences", lambda d: d["sequences"].pop(0), "sequence val/BDD/street: is missing"),
    ("repeated_sequences", lambda d: d["sequences"].append(d["sequences"][0]), "sequence val/BDD/street: is listed"),
    ("missing_frames", set_item("annotated_image_paths", ["frame0002.jpg"], 0), "street: lacks frame frame0001.jpg"),
    ("other_sizes", set_item("height", 9, 0), "street: is 9x3 (height x width); give its size, 2x3"),
    ("unknown_categories", set_item("category_id", 1231, 1, 0, "4"), "track 4: category is 1231; give LVIS v0.5 ids"),
    ("missing_scores", set_item("score", None, 1, 0, "4"), "frame k_scene_000001.png, track 4: has no score"),
    ("scores_not_finite", set_item("score", float("nan"), 1, 0, "4"), "track 4: score is nan; give a finite one"),
    ("masks_without_pixels", set_item("rle", rle(0), 1, 0, "4"), "track 4: the mask has no pixels; leave it out"),
]


@pytest.mark.parametrize(("kind", "edit", "message"), TOLERATED, ids=lambda value: value if type(value) is str else "")
def test_what_the_evaluator_accepts_is_counted_or_refused(files: Files, kind: str, edit: Edit, message: str) -> None:
    assert files.read(edit, strict=False).warnings[kind] == 1
    with pytest.raises(ValueError, match="predictions.json: ") as error:
        files.read(edit)
    assert message in str(error.value)


@pytest.mark.parametrize("strict", [True, False])
def test_track_id_0_is_counted(files: Files, strict: bool) -> None:
    """Strict scores take it for an id, so that it is no reason to refuse a file."""

    def edit(document: dict[str, Any]) -> None:
        masks = document["sequences"][1]["segmentations"][0]
        masks["0"] = masks.pop("4")
        document["sequences"][1]["track_category_ids"]["0"] = 347

    predictions = files.read(edit, strict=strict)
    assert predictions.warnings == {"track_id_0": 1}
    assert 0 in predictions.sequences[0].track_id


def test_repeated_sequences_add_up(files: Files) -> None:
    """As in BURST's evaluator, frame by frame; and a track twice in a frame is an error there, too."""

    def again(track: str) -> Edit:
        def edit(document: dict[str, Any]) -> None:
            other = copy.deepcopy(document["sequences"][1])
            other["track_category_ids"] = {track: 13}
            other["segmentations"] = [{track: {"rle": rle(3), "score": 0.125}}, {}, {}]
            document["sequences"].append(other)

        return edit

    kitchen = files.read(again("5"), strict=False).sequences[0]
    assert (kitchen.frame.tolist(), kitchen.track_id.tolist()) == ([1, 1, 1, 0], [4, 9, 5, 9])
    with pytest.raises(ValueError, match="frame k_scene_000001.png, track 4: occurs twice in the frame"):
        files.read(again("4"), strict=False)


REFUSED = [
    (set_item("split", "test"), "the file: split is 'test'; the ground truth's is 'val'"),
    (set_item("sequences", None), "the file: sequences is 'None'; give a list"),
    (set_item("dataset", 7, 1), "a sequence: dataset is '7'; give a str"),
    (set_item("annotated_image_paths", [1], 1), "kitchen: annotated_image_paths is [1]; give a list of paths"),
    (set_item("segmentations", [{}], 1), "kitchen: 1 segmentations for 3 frames; give one per frame"),
    (set_item("segmentations", [{}, [], {}], 1), "frame k_scene_000016.png: is []; give a dict of tracks"),
    (set_item("track_category_ids", {"9": 13}, 1), "track 4: category is None; give an id in track_category_ids"),
    (set_item("category_id", "13", 1, 0, "4"), "track 4: category is '13'"),
    (set_item("category_id", 10**30, 1, 0, "4"), "track 4: category is 1000000000000000000000000000000; give an id"),
    (set_item("score", 10**400, 1, 0, "4"), "track 4: score is 1000000"),
    (set_item("score", "high", 1, 0, "4"), "track 4: score is 'high'; give a number"),
    (set_item("score", True, 1, 0, "4"), "track 4: score is True; give a number"),
    (set_item("rle", [3, 5], 1, 0, "4"), "frame k_scene_000001.png, track 4: rle is '[3, 5]'; give a str"),
    (set_item("rle", "", 1, 0, "4"), "track 4: rle: counts must be characters from '0' to 'o'"),
    (set_item("rle", rle(8) + "~", 1, 0, "4"), "track 4: rle: counts must be characters from '0' to 'o'"),
    (set_item("rle", "Q", 1, 0, "4"), "track 4: rle: counts are truncated"),
    (set_item("rle", "PPPPPPPP0", 1, 0, "4"), "track 4: rle: counts have a number of 9 characters"),
    (set_item("rle", rle(8, (6, 9)), 1, 0, "4"), "track 4: rle: counts must be runs with the sum 6 * 8, got 54"),
    (set_item("rle", "Oa1", 1, 0, "4"), "track 4: rle: counts must be runs with the sum 6 * 8, got 48"),  # -1 and 49
    (lambda d: d["sequences"][1]["segmentations"][0].update(x=mask(d)), "track x: category is None"),
]


@pytest.mark.parametrize(("edit", "message"), REFUSED)
@pytest.mark.parametrize("strict", [False, True])
def test_what_the_evaluator_cannot_take_is_refused(files: Files, edit: Edit, message: str, strict: bool) -> None:
    with pytest.raises(ValueError, match="predictions.json: ") as error:
        files.read(edit, strict=strict)
    assert message in str(error.value)


@pytest.mark.parametrize("track", ["x", "-1", "9" * 19])
def test_tracks_are_numbers(files: Files, track: str) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["sequences"][1]["track_category_ids"][track] = 13
        document["sequences"][1]["segmentations"][0][track] = mask(document)

    with pytest.raises(ValueError, match=f"track {track}: the track is not a number; give numbers from 1, below 10¹⁸"):
        files.read(edit, strict=False)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d["sequences"].append(d["sequences"][0]), "sequence val/AVA/kitchen: is listed 2 times"),
        (set_item("height", 0, 0), "kitchen: is 8x0 with 2 frames; give a size"),
        (set_item("height", 10**20, 0), "with 2 frames; give a size"),
        (set_item("annotated_image_paths", ["1.jpg", f"{10**20}.jpg"], 0), "has too large a number; name frames"),
        (set_item("annotated_image_paths", ["1.jpg", "1.jpg"], 0), "give a size and frames that differ"),
        (set_item("annotated_image_paths", ["1.jpg", "a.jpg"], 0), "frame 'a.jpg' has no number at its end"),
        (set_item("neg_category_ids", ["5"], 0), "neg_category_ids is ['5']; give a list of category ids"),
        (set_item("track_category_ids", {"1": 13}, 0), "frame k_scene_000001.png, track 2: category is None"),
    ],
)
def test_broken_ground_truths_are_refused(files: Files, edit: Edit, message: str) -> None:
    with pytest.raises(ValueError, match="gt.json: ") as error:
        files.ground_truth(edit, strict=False)
    assert message in str(error.value)


def test_categories(files: Files) -> None:
    assert files.ground_truth().categories == (Category(id=347, name="cup"), Category(id=13, name="apple"))


def test_missing_categories_are_counted_or_refused(files: Files) -> None:
    truth = files.ground_truth(set_item("categories", None), strict=False)
    assert (truth.categories, truth.warnings) == ((), {"missing_categories": 1})
    with pytest.raises(ValueError, match="gt.json: the file: has no categories; list their ids and names"):
        files.ground_truth(set_item("categories", None))
    with pytest.raises(ValueError, match="gt.json: a category: name is 'None'; give a str"):
        files.ground_truth(set_item("categories", [{"id": 1}]), strict=False)


def test_odd_ground_truths_are_counted_or_refused(files: Files) -> None:
    edit = set_item("rle", rle(0), 0, 1, "2")
    assert files.ground_truth(edit, strict=False).warnings == {"masks_without_pixels": 1}
    with pytest.raises(ValueError, match="gt.json: .*, track 2: the mask has no pixels"):
        files.ground_truth(edit)


def test_run_lengths_of_all_kinds(files: Files) -> None:
    """Noise, and masks that begin or end with the frame; numbers of one and two characters, and differences below 0."""
    generator, size = np.random.default_rng(0), (40, 70)
    noise = [generator.random(size) < share for share in (0.001, 0.01, 0.5, 0.99)]
    blocks = [np.tile(np.arange(size[1]) < width, (size[0], 1)) for width in (0, 1, 69, 70)]
    codes = [coco.encode(np.asfortranarray(each.astype(np.uint8)))["counts"].decode() for each in noise + blocks]

    def edit(document: dict[str, Any]) -> None:
        document["sequences"][0] |= {"height": size[0], "width": size[1], "track_category_ids": {}}
        document["sequences"][0]["track_category_ids"] = {str(track): 13 for track in range(8)}
        document["sequences"][0]["segmentations"] = [{str(n): {"rle": code} for n, code in enumerate(codes)}, {}]

    truth = files.ground_truth(edit, strict=False)
    assert truth.warnings == {"masks_without_pixels": 1}
    assert [mask.counts.decode() for mask in truth.sequences[0].objects.masks] == codes


def test_problems_of_several_sequences_are_collected(files: Files) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["sequences"][0]["segmentations"][1]["1"]["rle"] = "a"
        document["sequences"][1]["height"] = 0

    problems: list[str] = []
    truth = read_ground_truth(files.write(files.gt, GROUND_TRUTH, edit), strict=True, problems=problems)
    assert truth.sequences == ()
    assert len(problems) == 2
    assert "sequence val/AVA/kitchen, frame k_scene_000001.png, track 1: rle: " in problems[0]
    assert "sequence val/BDD/street: is 3x0" in problems[1]
