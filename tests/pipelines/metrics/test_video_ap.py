"""Average precision against numbers worked out by hand, and against the official method restated plainly."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.datasets.ytvis import read_ground_truth, read_predictions
from pipelines.metrics.rules import LVVIS, UVO, YTVIS, ApRules
from pipelines.metrics.video_ap import video_ap
from tests.pipelines.metrics.tracks import guess, random_data, strip, track, truth
from tests.reference_evaluation import plain_ap

AGNOSTIC = replace(YTVIS, categories=False)
STRICT = replace(YTVIS, strict=True)


def near(value: float) -> object:
    return pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "rules", [YTVIS, LVVIS, UVO, AGNOSTIC, STRICT], ids=["ytvis", "lvvis", "uvo", "agnostic", "strict"]
)
def test_equals_the_official_method(seed: int, rules: ApRules) -> None:
    ground_truth, predictions = random_data(seed)
    numbers = video_ap(ground_truth, predictions, rules)
    for name, value in plain_ap(ground_truth, predictions, rules).items():
        assert numbers[name] == near(value), name


@pytest.mark.parametrize("k", range(9, 21))
def test_an_iou_of_a_threshold_reaches_it(k: int) -> None:
    numbers = video_ap(truth(track([strip(0, 20)])), [guess([strip(0, k)])], YTVIS)
    assert numbers["AP"] == near(min(k - 9, 10) / 10)
    assert numbers["AR1"] == near(min(k - 9, 10) / 10)
    reached = [name for name in numbers if name.startswith("AP@") and numbers[name] > 0]
    assert reached == [f"AP@{i / 20:.2f}" for i in range(10, min(k, 19) + 1)]


def test_the_official_tool_never_finds_an_object_with_the_id_0() -> None:
    ground_truth = truth(track([strip(0, 20)], number=0))
    predictions = [guess([strip(0, 20)], 0.9), guess([strip(0, 20)], 0.8)]
    assert video_ap(ground_truth, predictions, YTVIS)["AP"] == 0, "it is taken, so the second one is wrong as well"
    assert video_ap(ground_truth, predictions, STRICT)["AP"] == near(1)


def test_a_short_prediction_is_compared_with_the_frames_it_has() -> None:
    ground_truth = truth(track([strip(0, 20), strip(0, 20)]))
    assert video_ap(ground_truth, [guess([strip(0, 20)])], YTVIS)["AP"] == near(1)
    assert video_ap(ground_truth, [guess([strip(0, 20), None])], YTVIS)["AP"] == near(0.1)


def test_a_frame_of_another_size_does_not_count() -> None:
    ground_truth = truth(track([strip(0, 20), strip(0, 20)]))
    assert video_ap(ground_truth, [guess([strip(0, 20), strip(0, 9, (2, 200))])], YTVIS)["AP"] == near(1)


def test_categories_without_objects_are_left_out_and_those_without_predictions_are_zero() -> None:
    ground_truth = truth(track([strip(0, 20)]), track([strip(0, 20)], number=2, category=2), categories=[1, 2, 3])
    numbers = video_ap(ground_truth, [guess([strip(0, 20)]), guess([strip(0, 20)], 1, category=3)], YTVIS)
    assert numbers["AP/cat/1"] == near(1)
    assert numbers["AP/cat/2"] == numbers["AR100/cat/2"] == 0
    assert numbers["AP/cat/3"] == numbers["AR100/cat/3"] == -1
    assert numbers["AP"] == near(1 / 2)
    assert set(video_ap(truth(), [], YTVIS).values()) == {-1}


def test_crowds_are_ignored_but_in_lvvis_they_are_objects_that_can_be_found_again() -> None:
    ground_truth = truth(track([strip(0, 20)], crowd=True))
    predictions = [guess([strip(0, 20)], 0.9), guess([strip(0, 20)], 0.8), guess([strip(50, 70)], 0.7)]
    assert video_ap(ground_truth, predictions, YTVIS)["AP"] == -1
    lvvis = video_ap(ground_truth, predictions, LVVIS)
    assert lvvis["AR100"] == near(2)
    assert lvvis["AP"] == near(1)
    both = truth(track([strip(0, 20)], crowd=True), track([strip(50, 70)], number=2))
    assert video_ap(both, predictions, YTVIS)["AP"] == near(1), "both on the crowd are free"
    assert video_ap(both, predictions[:2], YTVIS)["AP"] == 0
    inside = [guess([strip(0, 4)], 0.9), guess([strip(50, 70)], 0.7)]
    assert video_ap(both, inside, YTVIS)["AP"] == near(1 / 2), "the IoU with a crowd is an ordinary one"


def test_an_object_that_counts_is_preferred_to_a_crowd_that_fits_better() -> None:
    ground_truth = truth(track([strip(0, 20)], crowd=True), track([strip(0, 15)], number=2))
    assert video_ap(ground_truth, [guess([strip(0, 20)])], YTVIS)["AP"] == near(0.6)


def test_categories_that_do_not_exist_vanish_unless_they_are_replaced() -> None:
    ground_truth = truth(track([strip(0, 20)]))
    predictions = [guess([strip(0, 20)], category=9)]
    assert video_ap(ground_truth, predictions, AGNOSTIC)["AP"] == 0
    assert video_ap(ground_truth, predictions, UVO)["AP"] == near(1)


def test_without_categories_ties_go_by_category_id() -> None:
    ground_truth = truth(track([strip(0, 20)], category=2), categories=[2, 1])
    right, wrong = guess([strip(0, 20)], category=2), guess([strip(50, 70)], category=1)
    assert video_ap(ground_truth, [right, wrong], AGNOSTIC)["AP"] == near(1 / 2)
    assert video_ap(ground_truth, [right, replace(wrong, category_id=2)], AGNOSTIC)["AP"] == near(1)


def test_of_equal_overlaps_the_later_object_is_taken() -> None:
    first, second = track([strip(0, 10)], number=8), track([strip(10, 20)], number=4)
    predictions = [guess([strip(0, 20)], 0.9), guess([strip(0, 10)], 0.8)]
    assert video_ap(truth(first, second), predictions, YTVIS)["AR100@0.50"] == near(1)
    assert video_ap(truth(second, first), predictions, YTVIS)["AR100@0.50"] == near(1 / 2)


def test_equal_scores_go_by_video_id() -> None:
    right, wrong = guess([strip(0, 20)], video=3), guess([strip(50, 70)], video=5)
    ground_truth = truth(track([strip(0, 20)], video=3), videos=[5, 3, 7])
    assert video_ap(ground_truth, [wrong, right], YTVIS)["AP"] == near(1)
    assert video_ap(ground_truth, [replace(wrong, video_id=3), right], YTVIS)["AP"] == near(1 / 2)
    assert video_ap(ground_truth, [right, replace(wrong, video_id=3)], YTVIS)["AP"] == near(1)


@pytest.mark.parametrize(("side", "sizes"), [(128, "sm"), (256, "ml")])
def test_areas_at_a_limit_are_on_both_sides(side: int, sizes: str) -> None:
    def sizes_of(numbers: dict[str, float], value: float) -> str:
        return "".join(name for name in "sml" if numbers[f"AP{name}"] == near(value))

    ground_truth = truth(track([strip(0, 20)], areas=[side**2, 0, None]))
    assert sizes_of(video_ap(ground_truth, [guess([strip(0, 20)])], YTVIS), 1) == sizes

    # A wrong prediction ahead of the right one halves the precision where it is not out of range.
    every = truth(
        *(track([strip(0, 20)], number=i, video=i, areas=[a]) for i, a in enumerate([1, 2**15, 2**17], 1)),
        videos=[1, 2, 3],
    )
    right = [guess([strip(0, 20)], 0.5, video=i) for i in (1, 2, 3)]
    wrong = guess([strip(0, side**2, (300, 400)), strip(0, 0, (300, 400)), None], 0.9)
    assert sizes_of(video_ap(every, right, YTVIS), 1) == "sml"
    assert sizes_of(video_ap(every, [wrong, *right], YTVIS), 1 / 2) == sizes
    assert video_ap(every, [wrong, *right], YTVIS)["AP"] == near(3 / 4)


def test_lvvis_cuts_areas_to_whole_pixels() -> None:
    ground_truth = truth(track([strip(0, 20)], areas=[128**2 + 0.5]))
    assert video_ap(ground_truth, [], YTVIS)["APs"] == -1
    assert video_ap(ground_truth, [], LVVIS)["APs"] == 0


def test_an_object_of_another_size_is_taken_only_if_none_else_is_left() -> None:
    small, large = track([strip(0, 20)], number=1, areas=[9]), track([strip(0, 15)], number=2, areas=[300**2])
    numbers = video_ap(truth(small, large), [guess([strip(0, 15)])], YTVIS)
    assert numbers["APs"] == near(0.6)
    assert numbers["APl"] == near(1)


@pytest.mark.parametrize(
    ("wrong", "recall"), [(0, (1, 1, 1)), (1, (0, 1, 1)), (10, (0, 0, 1)), (99, (0, 0, 1)), (100, (0, 0, 0))]
)
def test_limits(wrong: int, recall: tuple[float, float, float]) -> None:
    """The limits hold per video and category, or per video without categories."""
    ground_truth = truth(track([strip(0, 20)]), categories=[1, 2])
    predictions = [guess([strip(0, 20)], 0.1), *(guess([strip(50 + i, 70 + i)], 0.9) for i in range(wrong))]
    numbers = video_ap(ground_truth, predictions, YTVIS)
    assert (numbers["AR1"], numbers["AR10"], numbers["AR100"]) == recall
    assert numbers["AP"] == near(recall[2] / (wrong + 1))
    elsewhere = [replace(each, category_id=1 + (each.score > 0.5)) for each in predictions]
    assert video_ap(ground_truth, elsewhere, YTVIS)["AR1"] == 1
    agnostic = video_ap(ground_truth, elsewhere, AGNOSTIC)
    assert (agnostic["AR1"], agnostic["AR10"], agnostic["AR100"]) == recall


def test_precision_is_the_best_at_a_recall_or_above() -> None:
    """Right, wrong, right, of four objects: 1 up to recall 1/4, 2/3 up to 1/2, 0 beyond; the ends belong below."""
    objects = [track([strip(50 * i, 50 * i + 20)], number=i + 1) for i in range(4)]
    masks = [strip(0, 20), strip(30, 50), strip(50, 70)]
    predictions = [guess([mask], 1 - i / 10) for i, mask in enumerate(masks)]
    numbers = video_ap(truth(*objects), predictions, YTVIS)
    assert numbers["AP"] == near((26 + 25 * 2 / 3) / 101)
    assert numbers["AR100"] == near(1 / 2)
    better = [guess([strip(350, 370)], 2), *predictions]
    assert video_ap(truth(*objects), better, YTVIS)["AP"] == near(51 * 1 / 2 / 101), "1/2, then 1/3, then 2/4"


def test_a_recall_of_35_percent_does_not_reach_the_grid_s_35_percent() -> None:
    """The official grid has 35 * 0.01, which is above 7 / 20."""
    objects = [track([strip(20 * i, 20 * i + 20)], number=i + 1) for i in range(20)]
    predictions = [guess(each.masks) for each in objects[:7]]
    assert video_ap(truth(*objects), predictions, YTVIS)["AP"] == near(35 / 101)


def test_base_and_novel() -> None:
    """Partitions of the categories 1, 2, 3, 4 are 1, 2, 3, 0."""
    objects = [track([strip(0, 20)], number=i, category=i) for i in (1, 2, 3, 4)]
    predictions = [guess([strip(0, 20)], category=1), guess([strip(0, 10)], category=2)]
    numbers = video_ap(truth(*objects, categories=[4, 2, 3, 1]), predictions, LVVIS)
    assert numbers["mAP_overall"] == numbers["AP"] == near((1 + 0.1) / 4)
    assert numbers["mAP_base"] == numbers["base/AP"] == near(1 / 2)
    assert numbers["mAP_novel"] == numbers["novel/AP"] == near(0.1 / 2)
    assert numbers["novel/AP50"] == near(1 / 2)
    assert "mAP_base" not in video_ap(truth(*objects, categories=[1, 2, 3, 4]), predictions, YTVIS)


def test_partitions_that_the_official_tool_would_mix_up_are_refused() -> None:
    with pytest.raises(ValueError, match="ids 2 to 4 of 3 categories.*number them from 1"):
        video_ap(truth(categories=[4, 2, 3]), [], LVVIS)
    without = truth()
    with pytest.raises(ValueError, match="category 1 has the partition None"):
        video_ap(replace(without, categories=(replace(without.categories[0], partition=None),)), [], LVVIS)


def fixtures() -> list[Path]:
    """Folders with gt.json, predictions.json and expected.json, by the names ytvis, lvvis and uvo of their parents."""
    root = os.environ.get("OPENVIS_EVAL_FIXTURES")
    return (
        [each.parent for name in ("ytvis", "lvvis", "uvo") for each in sorted(Path(root).glob(f"{name}/*/gt.json"))]
        if root
        else []
    )


if fixtures():

    @pytest.mark.parametrize("folder", fixtures(), ids=lambda folder: f"{folder.parent.name}-{folder.name}")
    def test_equals_the_official_tool(folder: Path) -> None:
        ground_truth = read_ground_truth(str(folder / "gt.json"), strict=False)
        predictions = read_predictions(str(folder / "predictions.json"), ground_truth, strict=False).tracks
        rules = {"ytvis": YTVIS, "lvvis": LVVIS, "uvo": UVO}[folder.parent.name]
        if len(ground_truth.categories) > 1 and rules is UVO:
            rules = replace(rules, forced_category=None)
        variants = {"": rules, "agnostic/": AGNOSTIC}
        variants |= {"useCats1/": replace(rules, categories=True), "unforced/": replace(rules, forced_category=None)}
        numbers = {
            prefix + name: value
            for prefix, its in variants.items()
            for name, value in video_ap(ground_truth, predictions, its).items()
        }
        expected = json.loads((folder / "expected.json").read_text())
        compared = {name for name in expected if not name.startswith(("trackeval/", "maxDets_"))}
        assert len(compared) >= 70
        for name in compared:
            assert numbers[name] == pytest.approx(expected[name], abs=1e-6), name
