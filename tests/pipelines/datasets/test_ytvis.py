import copy
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from pipelines.datasets import mask_table
from pipelines.datasets.annotations import UNLISTED, GroundTruth, Mask, PredictedTrack
from pipelines.datasets.run_lengths import CorruptMaskError
from pipelines.datasets.ytvis import read_ground_truth, read_predictions, write_predictions

FULL = {"size": [2, 3], "counts": "06"}  # 2 high, 3 wide
LEFT = {"size": [2, 3], "counts": "024"}

TRUTH: dict[str, Any] = {
    "videos": [{"id": 3, "height": 2, "width": 3, "length": 2, "file_names": ["a/0.jpg", "a/1.jpg"]}],
    "categories": [{"id": 2, "name": "star", "partition": 3}, {"id": 1, "name": "disc"}],
    "annotations": [
        {
            "id": 7,
            "video_id": 3,
            "category_id": 1,
            "iscrowd": 0,
            "segmentations": [FULL, None],
            "areas": [6, None],
            "bboxes": [[0, 0, 3, 2], None],
        }
    ],
}
FOUND: list[Any] = [{"video_id": 3, "category_id": 2, "score": 0.5, "segmentations": [None, LEFT]}]


def save(folder: Path, document: Any) -> str:
    path = folder / "file.json"
    path.write_text(json.dumps(document))
    return str(path)


def changed(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy with one value replaced, or removed if it is `...`."""
    document = copy.deepcopy(document)
    target = document
    for key in place[:-1]:
        target = target[key]
    if value is ...:
        del target[place[-1]]
    else:
        target[place[-1]] = value
    return document


@pytest.fixture
def truth(tmp_path: Path) -> GroundTruth:
    return read_ground_truth(save(tmp_path, TRUTH), strict=True)


def test_ground_truth(truth: GroundTruth) -> None:
    assert [(v.id, v.height, v.width, v.length, v.file_names) for v in truth.videos] == [
        (3, 2, 3, 2, ("a/0.jpg", "a/1.jpg"))
    ]
    assert [(c.id, c.name, c.partition) for c in truth.categories] == [(2, "star", 3), (1, "disc", None)]
    (track,) = truth.tracks
    assert (track.id, track.video_id, track.category_id, track.crowd) == (7, 3, 1, False)
    assert track.masks == (Mask(2, 3, b"06"), None)
    assert track.areas == (6, None)
    assert len(truth.sha256) == 64
    assert truth.warnings == {}


def test_predictions(tmp_path: Path, truth: GroundTruth) -> None:
    predictions = read_predictions(save(tmp_path, FOUND), truth, strict=True)
    (track,) = predictions.tracks
    assert (track.video_id, track.category_id, track.score) == (3, 2, 0.5)
    assert track.masks == (None, Mask(2, 3, b"024"))
    assert predictions.warnings == {}


def test_equal_tracks_of_a_video_have_their_masks_once(tmp_path: Path, truth: GroundTruth) -> None:
    """Models give a track several labels; scoring looks at masks that are one object once."""
    found = [FOUND[0] | {"segmentations": its} for its in ([FULL, LEFT], [FULL, LEFT], [FULL, FULL], [None, LEFT])]
    masks = [track.masks for track in read_predictions(save(tmp_path, found), truth, strict=True).tracks]
    assert masks[0] is masks[1]
    assert list(map(tuple, masks[1:])) == [
        (Mask(2, 3, b"06"), Mask(2, 3, b"024")),
        (Mask(2, 3, b"06"), Mask(2, 3, b"06")),
        (None, Mask(2, 3, b"024")),
    ]


def test_masks_may_be_checked_later(tmp_path: Path, truth: GroundTruth) -> None:
    """Where nothing can be lifted, they are checked at once."""
    corrupt = [FOUND[0] | {"segmentations": [FULL, FULL | {"counts": "07"}]}]
    path = save(tmp_path, corrupt)
    (track,) = read_predictions(path, truth, strict=True, masks=False).tracks
    with pytest.raises(CorruptMaskError):
        mask_table.check([track.masks])
    Path(path).write_text(json.dumps(corrupt), encoding="utf-16")
    with pytest.raises(ValueError, match="entry 0, frame 1, counts must be runs with the sum 2 . 3"):
        read_predictions(path, truth, strict=True, masks=False)


def dense(mask: Mask | None) -> list[list[int]]:
    assert mask is not None
    return coco.decode({"size": mask[:2], "counts": mask.counts}).tolist()  # type: ignore[no-any-return]


def test_polygons_and_plain_run_lengths_are_converted(tmp_path: Path) -> None:
    polygons = [[0, 0, 1, 0, 1, 2, 0, 2], [2, 0, 3, 0, 3, 1, 2, 1]]
    segmentations = [polygons, {"size": [2, 3], "counts": [1, 2, 3]}]
    document = changed(TRUTH, ("annotations", 0, "segmentations"), segmentations)
    masks = read_ground_truth(save(tmp_path, document), strict=True).tracks[0].masks
    assert dense(masks[0]) == [[1, 0, 1], [1, 0, 0]]
    assert dense(masks[1]) == [[0, 1, 0], [1, 0, 0]]


def test_shapes_adds_the_encoded_video_and_its_rate(tmp_path: Path) -> None:
    document = changed(TRUTH, ("videos", 0, "video"), "videos/a.mp4")
    document["videos"][0]["fps"] = 6
    (video,) = read_ground_truth(save(tmp_path, document), strict=True).videos
    assert (video.video, video.fps) == ("videos/a.mp4", 6)


def test_written_predictions_are_the_submission_format(tmp_path: Path, truth: GroundTruth) -> None:
    tracks = read_predictions(save(tmp_path, FOUND * 2), truth, strict=True).tracks
    write_predictions(tmp_path / "out.json", iter(tracks))
    assert json.loads((tmp_path / "out.json").read_text()) == FOUND * 2
    file = io.StringIO()
    write_predictions(file, tracks)
    assert file.getvalue() == (tmp_path / "out.json").read_text()
    write_predictions(tmp_path / "out.json", [])
    assert json.loads((tmp_path / "out.json").read_text()) == []


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def crash() -> Iterator[PredictedTrack]:
        yield PredictedTrack(video_id=1, category_id=1, score=1, masks=())
        raise RuntimeError("crash")

    (tmp_path / "out.json").write_text("before")
    with pytest.raises(RuntimeError):
        write_predictions(tmp_path / "out.json", crash())
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert (tmp_path / "out.json").read_text() == "before"


ANNOTATION = ("annotations", 0)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("videos",), ..., "no list 'videos'"),
        (("videos", 0, "id"), ..., "video entry 0 has no 'id'; add it"),
        (("videos", 0, "height"), 0, "video 3 has 'height' 0"),
        (("videos", 0, "id"), [3], r"video entry 0 has 'id' \[3\]; give a whole number"),
        (("videos", 0, "id"), math.nan, "video entry 0 has 'id' nan; give a whole number"),
        (("videos",), [*TRUTH["videos"], TRUTH["videos"][0] | {"id": "a"}], "texts and numbers as ids of its videos"),
        (("videos", 0, "height"), None, "video 3 has 'height' None"),
        (("videos", 0, "video"), 5, "video 3 has 'video' 5; give a text"),
        (("categories", 0, "id"), ..., "category entry 0 has no 'id'"),
        (("categories", 0, "partition"), 4, "category 2 has the partition 4"),
        (("categories", 0), "star", "category entry 0 is 'star'"),
        (("annotations",), TRUTH["annotations"] * 2, "annotation id 7 occurs more than once"),
        ((*ANNOTATION, "iscrowd"), ..., "annotation 7 has no 'iscrowd'"),
        ((*ANNOTATION, "iscrowd"), None, "annotation 7 has 'iscrowd' None"),
        ((*ANNOTATION, "iscrowd"), "0", "annotation 7 has 'iscrowd' '0'"),
        ((*ANNOTATION, "id"), "a", "annotation entry 0 has 'id' 'a'"),
        ((*ANNOTATION, "areas"), ["6", None], r"annotation 7 has areas \['6', None\]"),
        ((*ANNOTATION, "areas"), [10**400, None], r"annotation 7 has areas \[1000"),
        (
            (*ANNOTATION, "segmentations"),
            [{"size": [2, 3], "counts": "07"}, None],
            "annotation 7, frame 0, .*sum 2 . 3",
        ),
        ((*ANNOTATION, "segmentations"), [{"size": [2, 3], "counts": "é"}, None], "annotation 7, frame 0, "),
        ((*ANNOTATION, "segmentations"), [{"size": [2], "counts": "06"}, None], r"frame 0, has the size \[2\]"),
        ((*ANNOTATION, "segmentations"), [{"size": [2, 3]}, None], "frame 0, has counts None"),
        ((*ANNOTATION, "segmentations"), [{"size": [2, 3], "counts": [1, 2]}, None], "runs that add up to 2 . 3"),
        ((*ANNOTATION, "segmentations"), [[["x"] * 6], None], "frame 0, has .*give polygons"),
        ((*ANNOTATION, "segmentations"), [[[0, 0, 1, 1]], None], "frame 0, has .*give polygons"),
        ((*ANNOTATION, "segmentations"), [[[0, 0, 1e9, 0, 1e9, 1e9]], None], "frame 0, has .*give polygons in pixels"),
        ((*ANNOTATION, "segmentations"), [[[0, 0, 10**400, 0, 1, 1]], None], "frame 0, has .*give polygons in pixels"),
        ((*ANNOTATION, "segmentations"), [None, 5], "frame 1, is 5"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_ground_truths_that_cannot_be_evaluated(
    tmp_path: Path, place: tuple[Any, ...], value: Any, message: str, strict: bool
) -> None:
    with pytest.raises(ValueError, match=f"file.json: .*{message}"):
        read_ground_truth(save(tmp_path, changed(TRUTH, place, value)), strict=strict)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((*ANNOTATION, "video_id"), 9, "annotation 7 has 'video_id' 9"),
        ((*ANNOTATION, "category_id"), 9, "annotation 7 has 'category_id' 9"),
        ((*ANNOTATION, "segmentations"), [FULL], "1 segmentations, but video 3 has 2 frames"),
        ((*ANNOTATION, "areas"), [6, None, None], "3 areas, but video 3 has 2 frames"),
        (
            (*ANNOTATION, "segmentations"),
            [{"size": [3, 2], "counts": "06"}, None],
            "frame 0, is 3 x 2, but video 3 is 2 x 3",
        ),
        ((*ANNOTATION, "areas"), [-1, None], r"annotation 7 has areas \[-1, None\]"),
        ((*ANNOTATION, "areas"), [math.nan, None], r"annotation 7 has areas \[nan, None\]"),
        ((*ANNOTATION, "iscrowd"), False, "annotation 7 has iscrowd False"),
        ((*ANNOTATION, "id"), "7", "annotation entry 0 has 'id' '7'"),
        ((*ANNOTATION, "id"), 7.0, "annotation entry 0 has 'id' 7.0"),
        (("videos", 0, "id"), 3.0, "video entry 0 has 'id' 3.0"),
        (("videos", 0, "length"), "2", "video 3 has 'length' '2'"),
        (("videos",), TRUTH["videos"] * 2, "video id 3 occurs more than once"),
        (("categories",), TRUTH["categories"] + TRUTH["categories"][:1], "category id 2 occurs more than once"),
        (("categories", 0, "name"), ..., "category 2 has no 'name'"),
        (("categories", 0, "name"), None, "category 2 has 'name' None"),
        (("videos", 0, "file_names"), 5, "video 3 has 'file_names' 5"),
        (("videos", 0, "file_names"), ["a"], "video 3 has 1 file_names, but length 2"),
        ((*ANNOTATION, "iscrowd"), 2, "annotation 7 has iscrowd 2"),
    ],
)
def test_oddities_of_ground_truths_are_refused_or_counted(
    tmp_path: Path, place: tuple[Any, ...], value: Any, message: str
) -> None:
    path = save(tmp_path, changed(TRUTH, place, value))
    with pytest.raises(ValueError, match=f"file.json: .*{message}.*; "):
        read_ground_truth(path, strict=True)
    assert list(read_ground_truth(path, strict=False).warnings.values()) == [1]


@pytest.mark.parametrize("strict", [True, False])
def test_annotations_with_the_id_0_are_counted(tmp_path: Path, strict: bool) -> None:
    """Strict rules find them as well, so that they are no reason to refuse a file."""
    truth = read_ground_truth(save(tmp_path, changed(TRUTH, (*ANNOTATION, "id"), 0)), strict=strict)
    assert truth.tracks[0].id == 0
    assert list(truth.warnings.values()) == [1]


@pytest.mark.parametrize("strict", [True, False])
def test_ids_of_0_are_ids_like_any_other(tmp_path: Path, strict: bool) -> None:
    document = changed(changed(TRUTH, ("videos", 0, "id"), 0), (*ANNOTATION, "video_id"), 0)
    document = changed(changed(document, ("categories", 1, "id"), 0), (*ANNOTATION, "category_id"), 0)
    truth = read_ground_truth(save(tmp_path, document), strict=strict)
    assert (truth.videos[0].id, truth.categories[1].id, truth.warnings) == (0, 0, {})
    found = read_predictions(save(tmp_path, changed(FOUND, (0, "video_id"), 0)), truth, strict=strict)
    assert found.tracks[0].video_id == 0


@pytest.mark.parametrize(("low", "high"), [("a", "b"), (0.5, 1.5), (1, 1.5), (3, 1 << 70), ("é", "𐀀")])
def test_ids_that_are_not_whole_numbers_are_numbered_in_their_order(tmp_path: Path, low: Any, high: Any) -> None:
    document = copy.deepcopy(TRUTH)
    document["videos"] = [document["videos"][0] | {"id": each} for each in (high, low)]
    document["categories"] = [{"id": high, "name": "star"}, {"id": low, "name": "disc"}]
    document["annotations"][0] |= {"video_id": high, "category_id": low}
    truth = read_ground_truth(save(tmp_path, document), strict=False)
    assert [video.id for video in truth.videos] == [category.id for category in truth.categories] == [2, 1]
    assert (truth.tracks[0].video_id, truth.tracks[0].category_id) == (2, 1)
    rows = [FOUND[0] | {"video_id": low, "category_id": high}, FOUND[0] | {"video_id": high, "category_id": 2}]
    found = read_predictions(save(tmp_path, rows), truth, strict=False)
    assert [(track.video_id, track.category_id) for track in found.tracks] == [(1, 2), (2, UNLISTED)]
    write_predictions(tmp_path / "out.json", found.tracks[:1], truth)
    assert json.loads((tmp_path / "out.json").read_text()) == rows[:1]
    with pytest.raises(ValueError, match=r"has 'id' .*; give a whole number"):
        read_ground_truth(save(tmp_path, document), strict=True)


@pytest.mark.parametrize("value", [..., None])
def test_public_validation_files_have_no_annotations(tmp_path: Path, value: Any) -> None:
    truth = read_ground_truth(save(tmp_path, changed(TRUTH, ("annotations",), value)), strict=True)
    assert (truth.annotated, truth.tracks, len(truth.videos)) == (False, (), 1)
    with pytest.raises(ValueError, match=r"file.json: has no annotations; .* hand predictions.json in"):
        truth.check_annotated()


def test_file_names_say_how_long_a_video_is(tmp_path: Path) -> None:
    document = changed(TRUTH, ("videos", 0, "length"), ...)
    assert read_ground_truth(save(tmp_path, document), strict=True).videos[0].length == 2
    document = changed(document, ("videos", 0, "file_names"), ...)
    truth = read_ground_truth(save(tmp_path, document), strict=False)
    assert truth.videos[0].length is None
    assert truth.warnings == {"videos that do not state their length": 1}
    with pytest.raises(ValueError, match="video 3 has no 'length'; give the number of frames"):
        read_ground_truth(save(tmp_path, document), strict=True)


def test_of_a_video_listed_twice_the_last_entry_counts(tmp_path: Path) -> None:
    document = changed(TRUTH, ("videos",), [TRUTH["videos"][0] | {"height": 9}, *TRUTH["videos"]])
    (video,) = read_ground_truth(save(tmp_path, document), strict=False).videos
    assert video.height == 2


def test_categories_do_not_matter_where_they_are_replaced(tmp_path: Path, truth: GroundTruth) -> None:
    predictions = read_predictions(
        save(tmp_path, changed(FOUND, (0, "category_id"), 9)), truth, strict=True, categories=False
    )
    assert len(predictions.tracks) == 1
    assert predictions.warnings == {}


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((0, "video_id"), 9, "entry 0 has 'video_id' 9, which the ground truth does not list"),
        ((0, "video_id"), "3", "entry 0 has 'video_id' '3'"),
        ((0, "score"), math.nan, "entry 0 has the score nan"),
        ((0, "score"), True, "entry 0 has 'score' True; give a number"),
        ((0, "score"), ..., "entry 0 has no 'score'"),
        ((0, "segmentations"), ..., "entry 0 has no 'segmentations'"),
        ((0, "segmentations"), [None, {"size": [2, 3], "counts": [0, 6]}], r"entry 0, frame 1, has counts \[0, 6\]"),
        ((0, "segmentations"), [None, {"size": [2, 3], "counts": "P"}], "entry 0, frame 1, .*truncated"),
        ((0, "segmentations"), [None, [[0, 0, 1, 0, 1, 1]]], "entry 0, frame 1, is "),
        ((0,), None, "entry 0 is None"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_predictions_that_cannot_be_evaluated(
    tmp_path: Path, truth: GroundTruth, place: tuple[Any, ...], value: Any, message: str, strict: bool
) -> None:
    with pytest.raises(ValueError, match=f"file.json: {message}"):
        read_predictions(save(tmp_path, changed(FOUND, place, value)), truth, strict=strict)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((0, "category_id"), 9, "'category_id' 9"),
        ((0, "score"), math.inf, "score inf"),
        ((0, "segmentations"), [LEFT], "1 segmentations, but video 3 has 2 frames"),
        ((0, "segmentations"), [None, {"size": [3, 2], "counts": "06"}], "frame 1, is 3 x 2"),
    ],
)
def test_oddities_of_predictions_are_refused_or_counted(
    tmp_path: Path, truth: GroundTruth, place: tuple[Any, ...], value: Any, message: str
) -> None:
    path = save(tmp_path, changed(FOUND, place, value))
    with pytest.raises(ValueError, match=f"file.json: entry 0.* {message}.*; "):
        read_predictions(path, truth, strict=True)
    predictions = read_predictions(path, truth, strict=False)
    assert len(predictions.tracks) == 1
    assert list(predictions.warnings.values()) == ([] if value == math.inf else [1])


@pytest.mark.parametrize(("text", "message"), [("[]", "is an empty list"), ("{}", "holds a dict"), ("[{", "cut off")])
def test_files_that_hold_no_predictions(tmp_path: Path, truth: GroundTruth, text: str, message: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"file.json: .*{message}"):
        read_predictions(str(path), truth, strict=False)


def test_an_empty_segmentation_is_an_absent_one(tmp_path: Path) -> None:
    document = changed(TRUTH, (*ANNOTATION, "segmentations"), [[], FULL])
    masks = read_ground_truth(save(tmp_path, document), strict=True).tracks[0].masks
    assert masks[0] is None
    assert np.sum(dense(masks[1])) == 6


def test_problems_of_several_entries_are_collected(tmp_path: Path) -> None:
    document = copy.deepcopy(TRUTH)
    first = document["annotations"][0]
    document["annotations"] += [
        first | {"id": 8, "segmentations": [{"size": [2, 3], "counts": "a"}, None]},
        first | {"id": 9, "category_id": 4},
        first | {"id": 10},
    ]
    problems: list[str] = []
    truth = read_ground_truth(save(tmp_path, document), strict=True, problems=problems)
    assert [track.id for track in truth.tracks] == [7, 10]
    assert len(problems) == 2
    assert "annotation 9 has 'category_id' 4" in problems[0]
    assert "annotation 8, frame 0," in problems[1]


def test_one_bad_video_is_not_a_problem_of_each_of_its_annotations(tmp_path: Path) -> None:
    problems: list[str] = []
    document = changed(TRUTH, ("videos", 0, "height"), 0)
    truth = read_ground_truth(save(tmp_path, document), strict=True, problems=problems)
    assert (truth.videos, truth.tracks, len(problems)) == ((), (), 1)
    assert "video 3 has 'height' 0" in problems[0]
