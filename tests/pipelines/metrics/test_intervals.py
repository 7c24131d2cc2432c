"""Of two videos a quarter of the draws is the first one twice, a quarter the second one: the ends of the intervals."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.datasets.annotations import GroundTruth, PredictedTrack
from pipelines.metrics.intervals import NAMES, confidence_intervals, paired_difference
from pipelines.metrics.open_vocabulary import open_vocabulary
from tests.pipelines.metrics.open_vocabulary_cases import DISC, TRUTH, predictions, world
from tests.pipelines.metrics.tracks import guess, random_data, strip


def test_intervals_of_two_videos() -> None:
    """The first alone: star right, disc right after a wrong one; the second alone: a disc, found but called green."""
    intervals = confidence_intervals(TRUTH, predictions())
    micro = (51 + 50 * 2 / 5) / 101  # right, three wrong, right
    agnostic = (51 + 50 * 2 / 3) / 101  # right, wrong, right
    assert tuple(intervals) == NAMES
    assert intervals == {
        "AP": pytest.approx((0, 3 / 4)),
        "base/AP": pytest.approx((1, 1)),
        "novel/AP": pytest.approx((0, 1 / 2)),
        "micro/AP": pytest.approx((0, micro)),
        "top1": pytest.approx((0, 1 / 2)),
        "agnostic/AP": pytest.approx((agnostic, 1)),
        "agnostic/AR10": pytest.approx((1, 1)),
    }
    other = confidence_intervals(replace(TRUTH, videos=TRUTH.videos[::-1]), predictions())
    assert other == {name: pytest.approx(ends) for name, ends in intervals.items()}


@pytest.mark.parametrize("seed", range(3))
def test_all_videos_once_give_the_numbers_themselves(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, found = random_data(seed)
    monkeypatch.setattr("pipelines.metrics.intervals.draw", lambda videos, *_: np.ones((1, videos), np.int64))
    numbers = open_vocabulary(truth, found)
    for name, ends in confidence_intervals(truth, found).items():
        assert ends == pytest.approx((numbers[name], numbers[name]), abs=1e-12), name


def test_intervals_hold_the_number_and_are_those_of_the_seed() -> None:
    truth, found = random_data(1)
    numbers = open_vocabulary(truth, found)
    intervals = confidence_intervals(truth, found, seed=1)
    for name, (low, high) in intervals.items():
        assert low <= numbers[name] <= high, name
    assert intervals["agnostic/AP"][0] < intervals["agnostic/AP"][1]
    assert confidence_intervals(truth, found, seed=1, threads=2) == intervals
    assert confidence_intervals(truth, found, seed=2) != intervals
    assert confidence_intervals(truth, found, ["top1"], seed=1) == {"top1": intervals["top1"]}


def test_where_there_is_no_number_there_is_no_interval() -> None:
    discs = world(*(each for each in TRUTH.tracks if each.category_id == DISC))
    intervals = confidence_intervals(discs, predictions())
    assert intervals["base/AP"] == (-1, -1)
    assert intervals["novel/AP"] == intervals["AP"] != (-1, -1)
    assert set(confidence_intervals(world(), predictions()).values()) == {(-1, -1)}
    assert set(confidence_intervals(TRUTH, []).values()) == {(0, 0)}


def test_a_mean_is_over_the_categories_that_were_drawn() -> None:
    """Each video has a category of its own; in the file categories are in any order."""
    tracks = [replace(TRUTH.tracks[0], category_id=2), replace(TRUTH.tracks[2], category_id=DISC)]
    truth = world(*tracks)
    truth = replace(truth, categories=truth.categories[::-1])
    found = [guess(each.masks, video=each.video_id, category=each.category_id) for each in tracks]
    for name in ("AP", "base/AP", "novel/AP"):
        assert confidence_intervals(truth, found)[name] == pytest.approx((1, 1)), name
    assert confidence_intervals(truth, found[:1])["AP"] == pytest.approx((0, 1))
    assert confidence_intervals(truth, found[:1])["base/AP"] == pytest.approx((1, 1))
    assert confidence_intervals(truth, found[:1])["novel/AP"] == pytest.approx((0, 0))


def test_a_difference_is_seen_on_the_same_videos() -> None:
    """Without its last name the disc of video 1 is not right: the mean over the two categories is 51/404 less."""
    a, b = predictions(), [each for each in predictions() if each.score != 0.4]
    difference = paired_difference(TRUTH, [(a, b)])
    assert difference[:3] == pytest.approx((51 / 404, 0, 1 / 4))
    assert difference.each == (difference.value,)
    for seed in range(8):
        assert paired_difference(TRUTH, [(a, b)], seed=seed, resamples=3).value == difference.value
    assert paired_difference(TRUTH, [(b, a)])[:3] == pytest.approx((-51 / 404, -1 / 4, 0))
    assert paired_difference(TRUTH, [(a, a)]) == (0, 0, 0, (0,))
    assert paired_difference(TRUTH, [(a, b)], name="novel/AP")[:3] == pytest.approx((51 / 202, 0, 1 / 2))
    assert paired_difference(TRUTH, [(a, b)], name="top1")[:3] == (0, 0, 0)


def test_a_difference_of_several_trainings_is_their_mean() -> None:
    """Once as above, once none: half of it. Draws of the first training alone give all of it."""
    a, b = predictions(), [each for each in predictions() if each.score != 0.4]
    difference = paired_difference(TRUTH, [(a, b), (a, a)])
    assert difference[:3] == pytest.approx((51 / 808, 0, 1 / 4))
    assert difference.each == pytest.approx((51 / 404, 0))


def test_trainings_that_differ_widen_the_interval() -> None:
    """The same in every video, but 0.4 with one training and 0 with the other."""
    truth, a, b = better_by_as_much_everywhere()
    assert paired_difference(truth, [(a, b), (a, a)])[:3] == pytest.approx((0.2, 0, 0.4))


def test_what_is_the_same_in_every_video_is_certain() -> None:
    """Nothing is left to chance."""
    truth, a, b = better_by_as_much_everywhere()
    assert paired_difference(truth, [(a, b)])[:3] == pytest.approx((0.4, 0.4, 0.4))
    assert confidence_intervals(truth, b)["AP"] == pytest.approx((0.6, 0.6))


def better_by_as_much_everywhere() -> tuple[GroundTruth, list[PredictedTrack], list[PredictedTrack]]:
    """The same object in 30 videos, found by the first predictions as it is, by the second ones in part."""
    tracks = [replace(TRUTH.tracks[0], id=video, video_id=video) for video in range(1, 31)]
    a, b = ([guess([strip(0, stop)], 0.5, video=video) for video in range(1, 31)] for stop in (20, 15))
    return world(*tracks, videos=range(1, 31)), a, b


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="names: unknown value 'AP50'; choose from AP, base/AP"):
        confidence_intervals(TRUTH, predictions(), ["AP50"])
    with pytest.raises(ValueError, match="resamples: 0 of 2 videos"):
        confidence_intervals(TRUTH, predictions(), resamples=0)
    with pytest.raises(ValueError, match="truth.json has no objects that AP is a mean over"):
        paired_difference(world(), [(predictions(), predictions())])
