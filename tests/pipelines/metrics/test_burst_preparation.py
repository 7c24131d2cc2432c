"""Parts of BURST's protocol one by one; tests/pipelines/metrics/test_burst.py has them in the whole."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.metrics import burst_preparation
from pipelines.metrics.burst_preparation import (
    evaluated,
    evaluated_categories,
    known_categories,
    limited,
    merged,
    ranking_order,
    tracks,
    with_own_ids,
)
from tests.pipelines.metrics.burst_cases import CUP, HAT, burst_sequence, detections
from tests.pipelines.metrics.tracks import strip

BOX = strip(0, 20)


def test_sequences_are_ranked_by_name() -> None:
    """A slash counts as a hyphen, which is before digits and letters, but behind nothing."""
    names = ["val/b/a", "val/a/b", "val/a-c", "val/a.b"]
    order = ranking_order([burst_sequence([], name) for name in names])
    assert [names[number] for number in order] == ["val/a/b", "val/a-c", "val/a.b", "val/b/a"]


def test_what_is_not_evaluated_is_left_out_before_categories_are_merged() -> None:
    """63 and 504 are not evaluated; 504 would be a cup; 207 is a hat; 967 becomes 529, which has no score."""
    rows = [(0, number, category, 1.0, BOX) for number, category in enumerate((63, 504, 207, 967, CUP, 1231))]
    sequence = evaluated(burst_sequence(rows))
    assert sequence.objects.category_id.tolist() == [HAT, 529, CUP, 1231]
    assert evaluated_categories([sequence]) == {HAT, CUP}
    assert merged(detections(rows)).category_id.tolist() == [63, CUP, HAT, 529, CUP, 1231]


def test_known_categories_are_those_present_and_those_negative() -> None:
    sequence = burst_sequence([(0, 1, CUP, 1.0, BOX)], negative={5, 6}, not_exhaustive={7})
    assert known_categories(sequence, frozenset({CUP, HAT, 5, 7})) == {CUP, 5}


def test_the_best_of_a_frame_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the file where nothing is left out; of equal scores the first is better."""
    monkeypatch.setattr(burst_preparation, "MAX_DETECTIONS", 2)
    rows = [(0, 1, CUP, 0.1, BOX), (0, 2, CUP, 0.2, BOX)]
    rows += [(1, 3, CUP, 0.5, BOX), (1, 4, CUP, 0.5, BOX), (1, 5, CUP, 0.9, BOX)]
    assert limited(detections(rows)).track_id.tolist() == [1, 2, 5, 3]


def test_track_id_0_stays_where_it_is_the_only_one() -> None:
    zero, other = detections([(0, 0, CUP, 0.5, BOX), (0, 7, CUP, 0.5, BOX)]), detections([(0, 1, CUP, 0.5, BOX)])
    assert [its.track_id.tolist() for its in with_own_ids([zero, other], False)] == [[0, 7], [1]]
    assert [its.track_id.tolist() for its in with_own_ids([zero, other], True)] == [[8, 7], [1]]
    assert [its.track_id.tolist() for its in with_own_ids([zero, zero], False)] == [[8, 7], [8, 7]]


def test_tracks() -> None:
    """In the order of their first masks; the category is that of the first one, the score the mean."""
    rows = [
        (0, 9, CUP, 0.9, BOX),
        (0, 3, HAT, 0.7, strip(30, 50)),
        (1, 9, HAT, 0.1, strip(5, 20)),
        (1, 2, 5, 0.5, BOX),
    ]
    first, second = tracks(burst_sequence([]), detections(rows), frozenset({CUP, HAT}))
    assert (first.id, first.category, first.masks) == (9, CUP, (BOX, strip(5, 20)))
    assert first.score == pytest.approx(0.5)
    assert (second.id, second.category, second.score, second.masks) == (3, HAT, 0.7, (strip(30, 50), None))


def test_scores_are_added_in_time() -> None:
    """0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1; frames need not be in the order of time."""
    sequence = replace(burst_sequence([]), image_paths=("3.jpg", "2.jpg", "1.jpg"), times=np.array([3, 2, 1]))
    rows = [(0, 1, CUP, 0.3, BOX), (1, 1, CUP, 0.2, BOX), (2, 1, CUP, 0.1, BOX)]
    (track,) = tracks(sequence, detections(rows), frozenset({CUP}))
    assert track.score == (0.1 + 0.2 + 0.3) / 3 != (0.3 + 0.2 + 0.1) / 3
