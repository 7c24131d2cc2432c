"""Costs of errors against arithmetic, and against evaluating again with files in which the errors are mended.

AP50 of n objects after a list of right and wrong predictions is a mean over 101 recalls: of 1 object all 101 belong to
it, of 2 objects 51 to the first (0 to 1/2) and 50 to the second, of 4 objects 26, 25, 25, 25.
"""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pipelines.datasets.annotations import GroundTruth, PredictedTrack
from pipelines.metrics import track_matching
from pipelines.metrics.errors import KINDS, error_costs
from pipelines.metrics.rules import LVVIS, UVO, YTVIS, ApRules
from pipelines.metrics.track_matching import match_tracks
from pipelines.metrics.video_ap import video_ap
from tests.pipelines.metrics.plain_errors import plain_costs, scenes
from tests.pipelines.metrics.tracks import guess, strip, track, truth

AGNOSTIC = replace(YTVIS, categories=False)
ONE, TWO, FAR = strip(0, 20), strip(50, 70), strip(300, 320)


def every_cost(
    ground_truth: GroundTruth, predictions: Sequence[PredictedTrack], rules: ApRules, *, threads: int = 1
) -> dict[str, float]:
    matches = match_tracks(ground_truth, predictions, rules, pairs="video", threads=threads)
    return error_costs(ground_truth, matches, rules)


def costs(
    ground_truth: GroundTruth, predictions: Sequence[PredictedTrack], rules: ApRules = YTVIS
) -> dict[str, object]:
    """Only those that are not 0."""
    every = every_cost(ground_truth, predictions, rules)
    assert tuple(every) == KINDS
    return {kind: pytest.approx(cost, abs=1e-12) for kind, cost in every.items() if abs(cost) > 1e-12}


def test_perfect_predictions_cost_nothing() -> None:
    ground_truth = truth(track([ONE]), track([TWO], number=2, category=2), categories=[1, 2])
    assert costs(ground_truth, [guess([ONE]), guess([TWO], category=2)]) == {}


def test_nothing_to_find_costs_nothing() -> None:
    assert costs(truth(), []) == {}
    assert costs(truth(videos=[]), []) == {}
    assert costs(truth(), [guess([ONE])]) == {}
    assert costs(truth(categories=[4, 2, 3]), [], LVVIS) == {}, "partitions do not matter"


def test_classification() -> None:
    """Category 1: of 2 objects 1 is found, 51 / 101. Category 2: wrong before right, 1 / 2."""
    objects = track([ONE]), track([TWO], number=2), track([FAR], number=3, category=2)
    ground_truth = truth(*objects, categories=[1, 2])
    predictions = [guess([ONE], 0.9), guess([TWO], 0.9, category=2), guess([FAR], 0.5, category=2)]
    before = (51 / 101 + 1 / 2) / 2
    assert video_ap(ground_truth, predictions, YTVIS)["AP50"] == pytest.approx(before)
    assert costs(ground_truth, predictions) == {"classification": 1 - before}


def test_of_several_under_a_wrong_category_the_best_is_right_and_others_vanish() -> None:
    """The one that is right keeps its score: after it a wrong one, then the second object; 51 · 1 + 50 · 2/3."""
    ground_truth = truth(track([ONE]), track([TWO], number=2), categories=[1, 2, 3])
    predictions = [
        guess([ONE], 0.6, category=3),
        guess([ONE], 0.8, category=2),
        guess([FAR], 0.7),
        guess([TWO], 0.5),
    ]
    before = 51 * 1 / 2 / 101
    assert costs(ground_truth, predictions) == {
        "classification": (51 + 50 * 2 / 3) / 101 - before,
        "background": 51 / 101 - before,
    }


def test_a_wrong_category_vanishes_if_the_object_is_taken() -> None:
    """Category 2 has an object of its own behind it: 1 / 2 becomes 1, and category 1 stays at 1, for a mean of two."""
    ground_truth = truth(track([ONE]), track([TWO], number=2, category=2), categories=[1, 2])
    predictions = [guess([ONE], 0.5), guess([ONE], 0.9, category=2), guess([TWO], 0.5, category=2)]
    assert costs(ground_truth, predictions) == {"classification": 1 / 4}


def test_a_category_without_objects_gains_by_being_corrected() -> None:
    ground_truth = truth(track([ONE]), categories=[1, 2])
    assert costs(ground_truth, [guess([ONE], category=2)]) == {"classification": 1}
    assert costs(ground_truth, [guess([FAR], category=2)]) == {"missed": 1}, "does not count, so mending gains nothing"


def test_without_categories_there_is_no_classification_error() -> None:
    ground_truth = truth(track([ONE], category=2), categories=[1, 2])
    assert costs(ground_truth, [guess([ONE], category=1)], AGNOSTIC) == {}
    duplicate = [guess([ONE], 0.9, category=1), guess([ONE], 0.8, category=2), guess([FAR], 0.95, category=2)]
    assert costs(ground_truth, duplicate, AGNOSTIC) == {"background": 1 / 2}


def test_duplicates() -> None:
    """Right, duplicate, right: 51 · 1 + 50 · 2/3."""
    ground_truth = truth(track([ONE]), track([TWO], number=2))
    predictions = [guess([ONE], 0.9), guess([ONE], 0.8), guess([TWO], 0.7)]
    assert costs(ground_truth, predictions) == {"duplicate": 50 * (1 - 2 / 3) / 101}


@pytest.mark.parametrize(("pixels", "kind"), [(9, "localisation"), (2, "localisation"), (1, "background")])
def test_localisation_is_an_overlap_from_a_tenth_to_a_half(pixels: int, kind: str) -> None:
    """1, 2 or 9 of 20 pixels; then another object: 51 · 1/2 + 50 · 0 before, 1 with it or 51 without it."""
    ground_truth = truth(track([ONE]), track([TWO], number=2))
    predictions = [guess([strip(0, pixels)], 0.9), guess([TWO], 0.8)]
    before = 51 * 1 / 2 / 101
    if kind == "localisation":
        assert costs(ground_truth, predictions) == {"localisation": 1 - before}
    else:
        assert costs(ground_truth, predictions) == {"background": 51 / 101 - before, "missed": 1 / 2 - before}


def test_a_loose_mask_vanishes_if_the_object_is_taken() -> None:
    ground_truth = truth(track([ONE]))
    assert costs(ground_truth, [guess([strip(0, 9)], 0.9), guess([ONE], 0.8)]) == {"localisation": 1 / 2}


def test_a_loose_mask_is_about_the_object_that_it_overlaps_best() -> None:
    """8 of 20 pixels of an object that is taken, 4 of 24 of one that is not: it vanishes, and the other is missed."""
    ground_truth = truth(track([ONE]), track([strip(16, 36)], number=2))
    predictions = [guess([strip(12, 20)], 0.9), guess([ONE], 0.8)]
    before = 51 * 1 / 2 / 101
    assert costs(ground_truth, predictions) == {"localisation": 51 / 101 - before, "missed": 1 / 2 - before}


def test_of_equal_overlaps_the_later_object_is_meant() -> None:
    """As in matching: 4 of 14 pixels of both, but one is taken."""
    free, found = track([strip(0, 10)]), track([strip(10, 20)], number=2)
    predictions = [guess([strip(6, 14)], 0.9), guess([strip(10, 20)], 0.8)]
    before = 51 * 1 / 2 / 101
    assert costs(truth(found, free), predictions) == {"localisation": 1 - before}
    assert costs(truth(free, found), predictions) == {"localisation": 51 / 101 - before, "missed": 1 / 2 - before}


def test_background() -> None:
    """Of wrong, right only right is left."""
    assert costs(truth(track([ONE])), [guess([FAR], 0.9), guess([ONE], 0.8)]) == {"background": 1 / 2}


def test_missed() -> None:
    """One of two is found: 51 / 101; one of one: 1. A category of which all is missed is not averaged."""
    ground_truth = truth(track([ONE]), track([TWO], number=2))
    assert costs(ground_truth, [guess([ONE])]) == {"missed": 50 / 101}
    assert costs(ground_truth, []) == {"missed": 1}
    two = truth(track([ONE]), track([TWO], number=2, category=2), categories=[1, 2])
    assert costs(two, [guess([ONE])]) == {"missed": 1 / 2}


def test_a_fragment() -> None:
    """Right in 1 of 3 frames. Mended it matches, or vanishes if a worse one has taken the object."""
    ground_truth = truth(track([ONE, ONE, ONE]))
    fragment = guess([None, ONE, None], 0.9)
    assert costs(ground_truth, [fragment]) == {"tracking": 1}
    assert costs(ground_truth, [fragment, guess([ONE, ONE, ONE], 0.8)]) == {"tracking": 1 / 2}
    assert costs(ground_truth, [fragment, guess([ONE, None, None], 0.8)]) == {"tracking": 1}, "the second one vanishes"


def test_a_short_fragment_is_no_background() -> None:
    ground_truth = truth(track([ONE] * 20))
    assert costs(ground_truth, [guess([ONE, *[None] * 19])]) == {"tracking": 1}, "a tube IoU of 1 / 20"


def test_an_identity_switch() -> None:
    """Four frames of one object, then five of another: 4 / 14 and 5 / 13. Mended it matches the second."""
    ground_truth = truth(track([ONE] * 9), track([TWO] * 9, number=2))
    switch = guess([ONE] * 4 + [TWO] * 5, 0.9)
    assert costs(ground_truth, [switch]) == {"tracking": 51 / 101}
    before = 51 * 1 / 2 / 101
    assert costs(ground_truth, [switch, guess([ONE] * 9, 0.8)]) == {"tracking": 1 - before}
    assert costs(ground_truth, [switch, guess([TWO] * 9, 0.8)]) == {
        "tracking": 51 / 101 - before,
        "missed": 1 / 2 - before,
    }


def test_a_switch_to_another_category_is_followed_only_while_it_is_right() -> None:
    ground_truth = truth(track([ONE] * 9), track([TWO] * 9, number=2, category=2), categories=[1, 2])
    assert costs(ground_truth, [guess([ONE] * 4 + [TWO] * 5)]) == {"localisation": 1 / 2}


@pytest.mark.parametrize(("right", "kind"), [(3, "tracking"), (2, "localisation")])
def test_a_track_that_is_lost_was_followed_in_at_least_half_of_its_frames(right: int, kind: str) -> None:
    ground_truth = truth(track([ONE] * 6))
    assert costs(ground_truth, [guess([ONE] * right + [FAR] * (6 - right))]) == {kind: 1}


def test_kinds_have_an_order() -> None:
    """A duplicate under its own category, which an object of another category overlaps as well."""
    ground_truth = truth(track([ONE]), track([ONE], number=2, category=2), categories=[1, 2])
    predictions = [guess([ONE], 0.9), guess([ONE], 0.8)]
    assert costs(ground_truth, predictions) == {"classification": 1 / 2}
    fragments = truth(track([ONE] * 3), track([ONE, None, None], number=2, category=2), categories=[1, 2])
    assert costs(fragments, [guess([ONE, None, None])]) == {"classification": 1 / 2}, "of category 2, before tracking"


def test_objects_that_do_not_count() -> None:
    """Under YTVIS rules a crowd is no object of any error: what matches it is none, others on it are background."""
    ground_truth = truth(
        track([ONE], crowd=True), track([TWO], number=2), track([FAR], number=3, category=2), categories=[1, 2]
    )
    found = [guess([TWO], 0.5), guess([FAR], 0.5, category=2)]
    assert costs(ground_truth, [guess([ONE], 0.9), guess([ONE], 0.8), *found]) == {}
    assert costs(ground_truth, [guess([ONE], 0.9, category=2), *found]) == {"background": 1 / 4}
    assert costs(ground_truth, [guess([strip(0, 9)], 0.9), *found]) == {"background": 1 / 4}


def test_a_crowd_that_counts_is_right_any_number_of_times() -> None:
    """Two loose masks ahead of an object that is found: 51 · 1/3 before, 1 with them."""
    ground_truth = truth(track([ONE], crowd=True), track([TWO], number=2))
    predictions = [guess([strip(0, 9)], 0.9), guess([strip(0, 8)], 0.8), guess([TWO], 0.7)]
    assert costs(ground_truth, predictions, LVVIS) == {"localisation": 1 - 51 / 3 / 101}


def test_an_object_that_is_never_found_is_as_if_taken() -> None:
    """The official tools do not find the id 0."""
    ground_truth = truth(track([ONE], number=0), track([TWO], number=2))
    predictions = [guess([strip(0, 9)], 0.9), guess([TWO], 0.8)]
    before = 51 * 1 / 2 / 101
    assert costs(ground_truth, predictions) == {"localisation": 51 / 101 - before}
    assert costs(ground_truth, predictions, replace(YTVIS, strict=True)) == {"localisation": 1 - before}


@pytest.mark.parametrize(
    "rules",
    [YTVIS, LVVIS, UVO, AGNOSTIC, replace(YTVIS, strict=True)],
    ids=["ytvis", "lvvis", "uvo", "agnostic", "strict"],
)
def test_equals_evaluating_mended_files(rules: ApRules) -> None:
    seen = dict.fromkeys(KINDS, 0.0)
    for seed in range(6):
        ground_truth, predictions = scenes(seed)
        found = every_cost(ground_truth, predictions, rules)
        assert found == pytest.approx(plain_costs(ground_truth, predictions, rules), abs=1e-12), seed
        assert min(found.values()) > -1e-12
        seen = {kind: max(seen[kind], found[kind]) for kind in KINDS}
    assert {kind for kind in KINDS if seen[kind] < 1e-3} <= (set() if rules.categories else {"classification"})


def test_chunks_and_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    ground_truth, predictions = scenes(3)
    together = every_cost(ground_truth, predictions, YTVIS)
    assert every_cost(ground_truth, predictions, YTVIS, threads=2) == together
    with pytest.raises(ValueError, match="threads: is 0"):
        every_cost(ground_truth, predictions, YTVIS, threads=0)
    monkeypatch.setattr(track_matching, "_CHUNK_MASKS", 1)
    assert every_cost(ground_truth, predictions, YTVIS) == together
