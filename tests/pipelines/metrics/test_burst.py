"""BURST's protocol on small cases, whose expectations are worked out by hand.

Sequences are 40 x 100 pixels. A perfect AP is 1 - 1 ulp; precision p up to recall 1/2 is 51 of 101 recall levels.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.datasets.burst_files import read_ground_truth, read_predictions
from pipelines.metrics.burst import guided, open_world
from tests.pipelines.metrics.burst_cases import CUP, FAR, FIRST, HAT, SECOND, Files, Track, box, one, sequence

HALF = 51 / 101


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_perfect_result(files: Files) -> None:
    scores = guided(*files(*one([Track(CUP, [FIRST, FIRST])], [Track(CUP, [FIRST, FIRST])])))
    for name in ("HOTA", "DetA", "AssA", "AP", "mask_HOTA"):
        assert scores[f"class_guided/{name}/all"] == scores[f"class_guided/{name}/common"] == pytest.approx(100)
        assert scores[f"class_guided/{name}/uncommon"] == -1
    counts = {name: scores[f"class_guided/cls_av/Count/{name}"] for name in ("Dets", "GT_Dets", "IDs", "GT_IDs")}
    assert counts == {"Dets": 2, "GT_Dets": 2, "IDs": 1, "GT_IDs": 1}


def test_boxes_are_compared_not_masks(files: Files) -> None:
    """A triangle for a square of 20 x 20: the boxes are the same, of the masks 20 * 21 / 2 / 400 = 0.525 are.

    So only the thresholds up to 0.5 are reached: one of 10 of AP, 10 of 19 of HOTA on masks.
    """
    triangle = FIRST.copy()
    triangle[:20, :20] = np.tril(triangle[:20, :20])
    scores = guided(*files(*one([Track(CUP, [FIRST, FIRST])], [Track(CUP, [triangle, triangle])])))
    assert scores["class_guided/HOTA/all"] == 100
    assert scores["class_guided/AP/all"] == pytest.approx(10)
    assert scores["class_guided/mask_HOTA/all"] == pytest.approx(100 * 10 / 19)


@pytest.mark.parametrize("twentieths", range(10, 20))
def test_exact_thresholds(files: Files, twentieths: int) -> None:
    """An IoU of k / 20 reaches its threshold in HOTA; those of AP drift up, so that from 0.85 on it does not."""
    scores = guided(*files(*one([Track(CUP, [FIRST, None])], [Track(CUP, [box(0, twentieths), None])])))
    assert (
        scores["class_guided/HOTA/all"] == scores["class_guided/mask_HOTA/all"] == pytest.approx(100 * twentieths / 19)
    )
    assert scores["class_guided/AP/all"] == pytest.approx(10 * (twentieths - (9 if twentieths < 17 else 10)))


TWICE = [Track(CUP, [FIRST, FIRST], 0.9, id=0), Track(CUP, [FIRST, FIRST], 0.8, id=1)]
PAIR = [Track(CUP, [FIRST, FIRST]), Track(CUP, [SECOND, SECOND])]


def test_track_id_0_leaves_its_object_to_others(files: Files) -> None:
    """Two objects, one of them predicted twice: with id 0, both predictions are right; otherwise recall stays 1/2."""
    data = files(*one(PAIR, TWICE))
    assert guided(*data)["class_guided/cat/347/AP_all"] == pytest.approx(1)
    assert guided(*data)["class_guided/cat/347/AR_all"] == 1
    assert guided(*data, strict=True)["class_guided/cat/347/AP_all"] == pytest.approx(HALF)
    assert guided(*data, strict=True)["class_guided/cat/347/AR_all"] == 0.5


def test_track_id_0_of_several_sequences_is_renumbered(files: Files) -> None:
    data = files([sequence("a", PAIR), sequence("b", [])], [sequence("a", TWICE), sequence("b", TWICE)])
    assert guided(*data)["class_guided/cat/347/AR_all"] == 0.5


def test_ids_are_local_to_sequences(files: Files) -> None:
    """Prediction 1 of one sequence has nothing to do with prediction 1 of the other: A is 1 everywhere."""
    data = [sequence(name, [Track(CUP, [FIRST, FIRST], id=1)]) for name in "ab"]
    scores = guided(*files(data, data))
    assert scores["class_guided/AssA/all"] == 100
    assert scores["class_guided/cat/347/IDs"] == scores["class_guided/cat/347/GT_IDs"] == 2


def test_a_missing_score_is_1(files: Files) -> None:
    """The right one comes before the wrong one with 0.9."""
    predictions = [Track(CUP, [FAR, FAR], 0.9), Track(CUP, [FIRST, FIRST], None)]
    scores = guided(*files(*one([Track(CUP, [FIRST, FIRST])], predictions)))
    assert scores["class_guided/AP/all"] == pytest.approx(100)


def test_track_score_is_the_mean_of_annotated_frames(files: Files) -> None:
    """(0.9 + 0.1) / 2 = 0.5 is behind the 0.6 of the wrong one; the frame that is not annotated does not count."""
    annotated = [sequence("a", [Track(CUP, [FIRST, FIRST])])]
    predicted = [sequence("a", [Track(CUP, [FIRST] * 3, 0.9), Track(CUP, [FAR, FAR, None], 0.6)], frames=3)]
    predicted[0]["segmentations"][1]["1"]["score"] = 0.1
    assert guided(*files(annotated, predicted))["class_guided/AP/all"] == pytest.approx(50)


WRONG = [Track(CUP, [FIRST, FIRST], 0.8), Track(CUP, [FAR, FAR], 0.9)]


def test_wrong_predictions_of_a_not_exhaustive_category_are_free(files: Files) -> None:
    """Otherwise AP is 1/2, and DetA 2 / (2 + 2)."""
    free = guided(*files(*one([Track(CUP, [FIRST, FIRST])], WRONG, not_exhaustive=[CUP])))
    assert (free["class_guided/AP/all"], free["class_guided/DetA/all"]) == (pytest.approx(100), 100)
    costly = guided(*files(*one([Track(CUP, [FIRST, FIRST])], WRONG)))
    assert (costly["class_guided/AP/all"], costly["class_guided/DetA/all"]) == (pytest.approx(50), 50)


def test_not_exhaustive_spares_what_is_below_half(files: Files) -> None:
    """An IoU of 9 / 20 is no match, and is taken away: then the object is missed, but nothing is wrong."""
    data = files(*one([Track(CUP, [FIRST, FIRST])], [Track(CUP, [box(0, 9)] * 2)], not_exhaustive=[CUP]))
    assert guided(*data)["class_guided/cat/347/Dets"] == 0


@pytest.mark.parametrize(
    ("lists", "ap", "deta"),
    [({}, 100, 100), ({"negative": [CUP]}, 50, 50), ({"negative": [CUP], "not_exhaustive": [CUP]}, 100, 100)],
)
def test_predictions_cost_where_the_category_is_known_to_be_absent(
    files: Files, lists: dict[str, list[int]], ap: float, deta: float
) -> None:
    """Two right in sequence a; in b, where there is a hat, a cup that may be wrong, with a better score."""
    data = files(
        [sequence("a", [Track(CUP, [FIRST, FIRST])]), sequence("b", [Track(HAT, [FIRST, FIRST])], **lists)],
        [sequence("a", [Track(CUP, [FIRST, FIRST], 0.8)]), sequence("b", [Track(CUP, [FAR, FAR], 0.9)])],
    )
    scores = guided(*data)
    assert scores["class_guided/AP/common"] == pytest.approx(ap)
    assert scores["class_guided/DetA/common"] == deta
    assert guided(*data)["exemplar_guided/AP/common"] == pytest.approx(ap)
    assert guided(*data)["exemplar_guided/DetA/common"] == 50  # 2 TP, 2 FP, whatever is known


def test_hota_spares_frames_without_the_category(files: Files) -> None:
    """The cup in frame 1, where only a hat is annotated, is free for HOTA; but the IoU of the tracks is 1/2."""
    objects = [Track(CUP, [FIRST, None]), Track(HAT, [None, FAR])]
    scores = guided(*files(*one(objects, [Track(CUP, [FIRST, FIRST])])))
    assert scores["class_guided/HOTA/common"] == 100
    assert scores["class_guided/AP/common"] == pytest.approx(10)


@pytest.mark.parametrize(("other", "fp"), [(None, 0), (Track(63, [None, FAR]), 0), (Track(967, [None, FAR]), 19)])
def test_frames_without_objects_do_not_exist_for_hota(files: Files, other: Track | None, fp: int) -> None:
    """Not even if the category is negative. 63 is not evaluated; 967 becomes 529, which is not, but still an object."""
    objects = [Track(CUP, [FIRST, None]), *([other] if other else [])]
    scores = guided(*files(*one(objects, [Track(CUP, [FIRST, FIRST])], negative=[CUP])))
    assert scores["class_guided/cls_av/HOTA_FP_sum"] == fp
    assert {name.split("/")[2] for name in scores if "/cat/" in name} == {"347"}


def test_merged_categories(files: Files) -> None:
    """Predictions of 504 and 720 are cups; objects of 504 are left out before they could become cups; 207 is a hat."""
    objects = [Track(CUP, [FIRST, FIRST]), Track(504, [FAR, FAR]), Track(207, [SECOND, SECOND])]
    predictions = [Track(504, [FIRST, FIRST]), Track(HAT, [SECOND, SECOND])]
    scores = guided(*files(*one(objects, predictions)))
    assert scores["class_guided/HOTA/all"] == 100
    assert scores["class_guided/AP/all"] == pytest.approx(100)
    assert scores["class_guided/cat/347/GT_Dets"] == scores["class_guided/cat/554/GT_Dets"] == 2


def test_lists_are_not_merged(files: Files) -> None:
    """504 is negative, and a prediction of it a cup, of which nothing is known."""
    data = files(
        [sequence("a", [Track(CUP, [FIRST, FIRST])]), sequence("b", [Track(HAT, [FAR, FAR])], negative=[504])],
        [sequence("a", [Track(CUP, [FIRST, FIRST], 0.8)]), sequence("b", [Track(504, [FIRST, FIRST], 0.9)])],
    )
    assert guided(*data)["class_guided/AP/common"] == pytest.approx(100)


def test_categories_per_frame(files: Files) -> None:
    """HOTA takes each frame's category, AP that of the first one: the cup is found whole, the hat in HOTA only."""
    objects = [Track(CUP, [FIRST, None]), Track(HAT, [None, FIRST])]
    predictions = [Track(HAT, [FIRST, FIRST], categories=[CUP, HAT])]
    scores = guided(*files(*one(objects, predictions)))
    assert scores["class_guided/HOTA/common"] == scores["class_guided/HOTA/uncommon"] == 100
    assert scores["class_guided/AP/common"] == pytest.approx(10)
    assert scores["class_guided/AP/uncommon"] == 0


def test_masks_without_pixels_are_detections(files: Files) -> None:
    """They are wrong in HOTA, and nothing in the IoU of tracks."""
    objects = [Track(CUP, [FIRST, None]), Track(CUP, [None, SECOND])]
    scores = guided(*files(*one(objects, [Track(CUP, [FIRST, box(0, 0)])])))
    assert scores["class_guided/DetA/all"] == pytest.approx(100 / 3)  # 1 TP, 1 FN, 1 FP
    assert scores["class_guided/AP/all"] == pytest.approx(100 * HALF)


def test_masks_without_pixels_are_in_the_mean_area(files: Files) -> None:
    """(32 * 40 + 0) / 2 = 640 pixels are small, 32 * 40 would not be."""
    objects = [Track(CUP, [box(0, 32, height=40), box(0, 0)])]
    scores = guided(*files(*one(objects, objects)))
    assert scores["class_guided/cat/347/AP_area_s"] == pytest.approx(1)
    assert scores["class_guided/cat/347/AP_area_m"] == -1


def test_equal_overlap_goes_to_the_later_object(files: Files) -> None:
    """The first prediction has 15 / 25 = 0.6 of both objects, the second is the first object.

    Up to 0.6 (3 thresholds) the first takes the later object, and both are right; above it is wrong, and the second
    has precision 1/2 up to recall 1/2.
    """
    objects = [Track(CUP, [box(0, 20)] * 2), Track(CUP, [box(10, 20)] * 2)]
    predictions = [Track(CUP, [box(5, 20)] * 2, 0.9), Track(CUP, [box(0, 20)] * 2, 0.8)]
    scores = guided(*files(*one(objects, predictions)))
    assert scores["class_guided/cat/347/AP_all"] == pytest.approx((3 + 7 * HALF / 2) / 10)


def test_the_better_score_takes_the_object(files: Files) -> None:
    """Whichever comes first in the file: the other one is wrong, but behind."""
    predictions = [Track(CUP, [FIRST, FIRST], 0.5), Track(CUP, [FIRST, FIRST], 0.9)]
    for order in (1, -1):
        scores = guided(*files(*one([Track(CUP, [FIRST, FIRST])], predictions[::order])))
        assert scores["class_guided/AP/all"] == pytest.approx(100)


def test_objects_in_range_come_first(files: Files) -> None:
    """The prediction, 29 x 40, has 25 / 29 = 0.862 of a small object, and 29 / 30 of one that is too large.

    Among small ones it takes the first up to 0.85 (8 thresholds), and is free with the other one above.
    """
    objects = [Track(CUP, [box(0, width, height=40)] * 2) for width in (25, 30)]
    scores = guided(*files(*one(objects, [Track(CUP, [box(0, 29, height=40)] * 2)])))
    assert scores["class_guided/cat/347/AP_area_s"] == pytest.approx(0.8)
    assert scores["class_guided/cat/347/AP_all"] == pytest.approx(HALF)


def test_equal_scores_are_ranked_by_the_names_of_sequences(files: Files) -> None:
    """The wrong one of sequence a comes before the right one of b, whatever the order of the files."""
    annotated = [sequence(name, [Track(CUP, [FIRST, FIRST])]) for name in "ba"]
    predicted = [sequence("b", [Track(CUP, [FIRST, FIRST])]), sequence("a", [Track(CUP, [FAR, FAR])])]
    for order in (1, -1):
        scores = guided(*files(annotated[::order], predicted))
        assert scores["class_guided/cat/347/AP_all"] == pytest.approx(HALF / 2)


def test_300_predictions_of_a_frame_are_kept(files: Files) -> None:
    """The right one is the worst of 301 in frame 0, so that it has only frame 1, half of the object."""
    many = [Track(HAT, [FAR, None], 0.6) for _ in range(300)]
    scores = guided(*files(*one([Track(CUP, [FIRST, FIRST])], [Track(CUP, [FIRST, FIRST], 0.5), *many])))
    assert scores["class_guided/AP/all"] == pytest.approx(10)
    assert scores["class_guided/DetA/all"] == 50


def test_ranges_include_both_ends(files: Files) -> None:
    """Three masks of 32 x 32 pixels are short and middling, small and medium; predictions out of range are free."""
    square = box(0, 32, height=32)
    objects, wrong = Track(CUP, [square] * 3), Track(CUP, [FAR, None, None], 0.9)  # 400 pixels in one frame
    scores = guided(*files(*one([objects], [objects, wrong], frames=3)))
    its = {name.rpartition("/")[2]: value for name, value in scores.items() if "/cat/347/AP" in name}
    expected = {"all": 0.5, "area_s": 0.5, "area_m": 1, "area_l": -1, "time_s": 0.5, "time_m": 1, "time_l": -1}
    assert its == pytest.approx({f"AP_{name}": value for name, value in expected.items()})


def test_ranges_are_averaged_over_categories_that_have_them(files: Files) -> None:
    """Of the cup and the hat, which is missed, only the cup is of medium size; there are no large ones."""
    objects = [Track(CUP, [box(0, 40, height=40)] * 2), Track(HAT, [FAR, FAR])]
    scores = guided(*files(*one(objects, objects[:1])))
    assert scores["class_guided/cls_av/TrackMAP/AP_all"] == pytest.approx(0.5)
    assert scores["class_guided/cls_av/TrackMAP/AP_area_m"] == pytest.approx(1)
    assert scores["class_guided/cls_av/TrackMAP/AR_area_l"] == -1


def test_open_world(files: Files) -> None:
    """Categories do not matter; 63 is not an object. All: 2 of 3 found, so DetRe 2/3, OWTA its root; common: 1 of 1."""
    objects = [Track(CUP, [FIRST, None]), Track(HAT, [SECOND, FAR]), Track(63, [box(80, 20), None])]
    predictions = [Track(1, [FIRST, None]), Track(63, [None, FAR])]
    scores = open_world(*files(*one(objects, predictions)))
    assert scores["open_world/DetRe/all"] == pytest.approx(200 / 3)
    assert scores["open_world/AssA/all"] == pytest.approx(75)  # 1, and 1 / (1 + 1 FN)
    assert scores["open_world/OWTA/all"] == pytest.approx(100 * 0.5**0.5)
    assert scores["open_world/DetRe/common"] == scores["open_world/AssA/common"] == 100
    assert scores["open_world/DetRe/uncommon"] == 50


@pytest.mark.parametrize(("listed", "precision"), [(HAT, 0.5), (1, 1)])
def test_open_world_looks_up_the_first_category(files: Files, listed: int, precision: float) -> None:
    """Wrong predictions are free if category 1 is not exhaustive, whatever the objects are."""
    data = files(*one([Track(HAT, [FIRST, FIRST])], [Track(HAT, [FIRST, FAR])], not_exhaustive=[listed]))
    assert open_world(*data)["open_world/detail/all/DetPr"] == precision
    assert open_world(*data)["open_world/OWTA/common"] == -1


def test_open_world_takes_the_files_of_the_splits(files: Files, tmp_path: Path) -> None:
    """Their sequences and frames may be fewer, and in another order."""
    objects = [Track(CUP, [FIRST, FIRST]), Track(HAT, [SECOND, SECOND])]
    names = [sequence(name, objects) for name in "ab"]
    data = files(names, [sequence(name, [Track(CUP, [FIRST, SECOND])]) for name in "ab"])
    splits = {}
    for split, own in (("common", objects[:1]), ("uncommon", objects[1:])):
        annotated = [sequence(name, [replace(each, id=7) for each in own]) for name in "ba"]
        (tmp_path / f"{split}.json").write_text(json.dumps({"split": "val", "sequences": annotated, "categories": []}))
        splits[split] = read_ground_truth(str(tmp_path / f"{split}.json"), strict=True)
    assert open_world(*data, **splits) == open_world(*data)
    with pytest.raises(ValueError, match="common.json: .*gt.json lacks sequence val/AVA/b"):
        open_world(*files(names[:1], []), **splits)


def test_nothing_to_evaluate(files: Files) -> None:
    data = files(*one([Track(63, [FIRST, FIRST])], [Track(CUP, [FIRST, FIRST])]))
    with pytest.raises(ValueError, match="gt.json: no object of an evaluated category"):
        guided(*data)
    assert set(open_world(*data).values()) == {-1}


if fixtures := os.environ.get("OPENVIS_EVAL_FIXTURES"):  # numbers of the official evaluator

    @pytest.mark.parametrize("folder", sorted(Path(fixtures, "burst").glob("*/")), ids=lambda folder: folder.name)
    def test_official_numbers(folder: Path) -> None:
        truths = {
            split: read_ground_truth(str(folder / "gt" / f"{split}_classes.json"), strict=False)
            for split in ("all", "common", "uncommon")
        }
        truth = truths.pop("all")
        predictions = read_predictions(str(folder / "predictions.json"), truth, strict=False)
        scores = guided(truth, predictions) | guided(truth, predictions)
        scores |= open_world(truth, predictions, **truths)
        expected = json.loads((folder / "expected.json").read_text())
        assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-6, rel=0)
