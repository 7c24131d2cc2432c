from dataclasses import replace

import pytest

from pipelines.datasets.annotations import Category, PredictedTrack
from pipelines.metrics.open_vocabulary import derangement, match_as_one_ranking, open_vocabulary
from pipelines.metrics.rules import OPEN_VOCABULARY
from pipelines.metrics.video_ap import video_ap
from pipelines.shapes.categories import BASE, CATEGORIES
from tests.pipelines.metrics.open_vocabulary_cases import (
    DISC,
    GREEN,
    STAR,
    STRIPED,
    STRIPED_DISC,
    TRUTH,
    predictions,
    world,
)
from tests.pipelines.metrics.tracks import guess, random_data, strip, track


def near(value: float) -> object:
    return pytest.approx(value, abs=1e-12)


def as_objects(score: float = 0.5) -> list[PredictedTrack]:
    return [guess(each.masks, score, video=each.video_id, category=each.category_id) for each in TRUTH.tracks]


def test_means_over_categories() -> None:
    """The star is right at once; of two discs one is found, after a wrong one: precision 1/2 at 51 of 101 recalls."""
    numbers = open_vocabulary(TRUTH, predictions())
    disc = 51 / 101 / 2
    assert [numbers[name] for name in ("AP", "AP50", "AP75")] == [near((1 + disc) / 2)] * 3
    assert (numbers["base/AP"], numbers["novel/AP"]) == (near(1), near(disc))
    assert (numbers["AR1"], numbers["AR10"], numbers["novel/AR10"]) == (near(1 / 2), near(3 / 4), near(1 / 2))
    assert (numbers["categories"], numbers["min_tracks"]) == (2, 1)
    assert (numbers["top1"], numbers["novel/top1"], numbers["top1/texture"]) == (near(1 / 3), 0, near(1 / 3))


def test_one_ranking_charges_every_wrong_name() -> None:
    """Right at places 1 and 6, of three objects: 34 recalls with precision 1, 33 with 2 of 6."""
    assert open_vocabulary(TRUTH, predictions())["micro/AP"] == near((34 + 33 * 2 / 6) / 101)
    assert open_vocabulary(TRUTH, predictions())["micro/AP50"] == near((34 + 33 * 2 / 6) / 101)


@pytest.mark.parametrize("name", [GREEN, 99], ids=["without objects", "not in the file"])
def test_a_name_that_nothing_has_costs_in_one_ranking_alone(name: int) -> None:
    right = as_objects()
    wrong = guess([strip(0, 20)], 0.9, video=2, category=name)
    numbers = open_vocabulary(TRUTH, [*right, wrong])
    assert (numbers["AP"], numbers["novel/AP"]) == (near(1), near(1))
    assert numbers["micro/AP"] == near(3 / 4), "precision is 3 of 4 at best, from all recalls on"
    assert numbers["top1"] == near(2 / 3)
    assert numbers["agnostic/AP"] == near(1), "it is the same track"


def test_in_one_ranking_nothing_is_right_about_another_video_or_category() -> None:
    numbers = open_vocabulary(TRUTH, [guess([strip(0, 20)], video=2, category=STAR)])
    assert numbers["micro/AP"] == 0
    assert numbers["agnostic/AP"] == near(34 / 101)


def test_one_ranking_has_no_limit() -> None:
    many = [guess([strip(200 + i, 201 + i)], 0.9, category=GREEN) for i in range(150)]
    numbers = open_vocabulary(TRUTH, [*many, *as_objects()])
    assert numbers["micro/AP"] == near(3 / 153)
    assert numbers["agnostic/AP"] == near(3 / 153)


def test_in_one_ranking_scores_decide_across_videos_and_categories() -> None:
    everything, (matches,) = match_as_one_ranking(TRUTH, predictions())
    assert {category.id for category in everything.categories} == {1, 2, 3, 4, 5}
    assert sorted(matches.prediction_categories.tolist()) == [0] * 6
    late = [replace(each, score=1 - each.score) for each in predictions()]
    assert open_vocabulary(TRUTH, late)["micro/AP"] == near((34 + 33 * 2 / 6) / 101), "the last ones became first"
    assert open_vocabulary(TRUTH, late[:1] + late[2:])["micro/AP"] == near((34 + 33 * 2 / 5) / 101)


def test_without_categories_a_track_counts_once() -> None:
    """Star, disc, background, disc: 67 recalls with precision 1, 34 with 3 of 4; each video's first is right."""
    numbers = open_vocabulary(TRUTH, predictions())
    assert [numbers["agnostic/AP"], numbers["agnostic/AP50"]] == [near((67 + 34 * 3 / 4) / 101)] * 2
    assert (numbers["agnostic/AR1"], numbers["agnostic/AR10"]) == (near(2 / 3), near(1))


def test_with_true_names_what_is_left_is_masks() -> None:
    """Discs: right, background (which keeps its name), right."""
    oracle = (1 + (51 + 50 * 2 / 3) / 101) / 2
    assert open_vocabulary(TRUTH, predictions())["oracle/AP"] == near(oracle)
    wrong = [replace(each, category_id=GREEN) for each in as_objects()]
    numbers = open_vocabulary(TRUTH, wrong)
    assert (numbers["AP"], numbers["top1"], numbers["oracle/AP"], numbers["agnostic/AP"]) == (0, 0, near(1), near(1))
    loose = [guess([strip(0, 5)], video=1), guess([strip(100, 115)], video=1), guess([strip(0, 20)], video=2)]
    disc = 0.6 + 0.4 * (51 / 101 / 2)
    assert open_vocabulary(TRUTH, loose)["oracle/AP"] == near((0 + disc) / 2), "0.75 reaches 6 of 10 thresholds"


def test_permuted_names_are_worth_nothing() -> None:
    """With Shapes' own categories, whatever the seed; predictions are perfect but for a background track."""
    categories = tuple(
        Category(id=number + 1, name=category.name, partition=1 if number in BASE else 3)
        for number, category in enumerate(CATEGORIES)
    )
    tracks = [
        track([strip(20 * i, 20 * i + 20)], number=10 * v + i + 1, video=v, category=97 * v + i + 1)
        for v in (1, 2, 3)
        for i in range(6)
    ]
    truth = replace(world(*tracks, videos=(1, 2, 3)), categories=categories)
    found = [guess(each.masks, video=each.video_id, category=each.category_id) for each in tracks]
    for seed in range(3):
        numbers = open_vocabulary(truth, found, seed=seed)
        assert (numbers["AP"], numbers["top1"], numbers["micro/AP"]) == (near(1), 1, near(1))
        assert (numbers["permuted/AP"], numbers["permuted/top1"]) == (0, 0)


def test_permuted_names_are_those_of_the_derangement() -> None:
    for seed in range(8):
        other = derangement(range(1, 6), seed)
        renamed = [replace(each, category_id=other[each.category_id]) for each in predictions()]
        numbers, expected = open_vocabulary(TRUTH, predictions(), seed=seed), open_vocabulary(TRUTH, renamed)
        assert (numbers["permuted/AP"], numbers["permuted/top1"]) == (expected["AP"], expected["top1"])
        assert numbers["AP"] > 0.6
    one = replace(world(TRUTH.tracks[0]), categories=TRUTH.categories[:1])
    numbers = open_vocabulary(one, predictions())
    assert (numbers["permuted/AP"], numbers["permuted/top1"], numbers["AP"]) == (-1, -1, near(1))


def test_a_derangement_moves_every_id() -> None:
    for count in (2, 3, 1000):
        for seed in range(5):
            other = derangement(range(1, count + 1), seed)
            assert sorted(other) == sorted(other.values()) == list(range(1, count + 1))
            assert all(a != b for a, b in other.items())
    assert derangement(range(1000), 0) == derangement(range(999, -1, -1), 0) != derangement(range(1000), 1)
    with pytest.raises(ValueError, match="ids: 1 given"):
        derangement([7], 0)


def test_copies_of_a_track_and_the_order_of_the_file() -> None:
    """Masks that were read from a file are equal, not the same; under one name twice, a track is charged twice."""
    numbers = open_vocabulary(TRUTH, predictions())
    assert open_vocabulary(TRUTH, predictions()[::-1]) == numbers
    twice = open_vocabulary(TRUTH, [*predictions(), guess([strip(0, 20)], 0.95, video=1, category=STAR)])
    assert twice["agnostic/AP"] == numbers["agnostic/AP"]
    assert twice["micro/AP"] == near((34 + 33 * 2 / 7) / 101)


@pytest.mark.parametrize("seed", range(2))
def test_the_same_in_threads_and_beside_the_rules_of_youtube_vis(seed: int) -> None:
    truth, found = random_data(seed)
    numbers = open_vocabulary(truth, found)
    assert numbers == open_vocabulary(truth, found, threads=2)
    expected = video_ap(truth, found, OPEN_VOCABULARY)
    assert {name: numbers[name] for name in expected} == expected


def test_nothing_to_average() -> None:
    empty = open_vocabulary(world(), predictions())
    assert {name for name, value in empty.items() if value != -1} == {"categories"}
    assert empty["categories"] == 0
    blind = open_vocabulary(TRUTH, [])
    names = ("AP", "novel/AP", "micro/AP", "top1", "agnostic/AP", "oracle/AP", "permuted/AP", "matched")
    assert {blind[name] for name in names} == {0}
    assert blind["top1/matched"] == -1


def test_crowds_and_categories_with_few_tracks() -> None:
    more = [track([strip(200, 220)], number=9, video=1, category=STRIPED, crowd=True)]
    more += [track([strip(0, 9)], number=10 + i, video=2, category=STRIPED_DISC) for i in range(4)]
    numbers = open_vocabulary(world(*TRUTH.tracks, *more), predictions())
    assert (numbers["categories"], numbers["min_tracks"]) == (3, 1)
    discs = [each for each in TRUTH.tracks if each.category_id == DISC]
    assert open_vocabulary(world(*discs), predictions())["min_tracks"] == 2


def test_categories_need_partitions() -> None:
    without = replace(TRUTH, categories=tuple(replace(each, partition=None) for each in TRUTH.categories))
    with pytest.raises(ValueError, match="partition"):
        open_vocabulary(without, predictions())
