"""TrackMAP on small cases, worked out by hand; tests/pipelines/metrics/test_burst.py has it in the whole protocol."""

from collections.abc import Sequence

import pytest

from pipelines.metrics.track_map import RANGES, THRESHOLDS, TrackMatches, average_precision, match_tracks
from tests.pipelines.metrics.burst_cases import CUP, HAT, Row, burst_sequence, detections
from tests.pipelines.metrics.tracks import strip


def match(objects: Sequence[Row], found: Sequence[Row], **lists: set[int]) -> dict[int, TrackMatches]:
    return match_tracks(burst_sequence(objects, **lists), detections(found), frozenset({CUP, HAT}))


CUPS = [(0, 1, CUP, 1.0, strip(0, 20)), (1, 1, CUP, 1.0, strip(0, 20)), (0, 2, CUP, 1.0, strip(100, 120))]


def test_tracks_are_matched_from_the_best_score_on() -> None:
    """A score is the mean over masks; the track of the second frame only has half of the object: an IoU of 1/2."""
    found = [(1, 5, CUP, 0.7, strip(0, 20)), (0, 9, CUP, 1.0, strip(100, 120)), (1, 9, CUP, 0.2, strip(300, 320))]
    matches = match(CUPS, found)[CUP]
    assert matches.score.tolist() == [0.7, 0.6]
    assert matches.objects.tolist() == [2, 2, 0, 0, 2, 0, 0]
    assert matches.matched[0].sum(0).tolist() == [1, 1], "only 0.5 of the thresholds is reached by either"
    assert not matches.ignored[0].any()
    assert matches.matched.shape == (len(RANGES), len(THRESHOLDS), 2)


def test_an_object_is_taken_once_unless_the_track_has_the_id_0() -> None:
    twice = [(0, 3, CUP, 0.9, strip(100, 120)), (0, 4, CUP, 0.8, strip(100, 120))]
    assert match(CUPS, twice)[CUP].matched[0, 0].tolist() == [True, False]
    zero = [(0, 0, CUP, 0.9, strip(100, 120)), *twice[1:]]
    assert match(CUPS, zero)[CUP].matched[0, 0].tolist() == [True, True]


def test_predictions_count_only_where_something_is_known() -> None:
    hat = [(0, 3, HAT, 0.9, strip(0, 20))]
    assert set(match(CUPS, hat)) == {CUP}
    assert match(CUPS, hat, negative={HAT})[HAT].ignored[0, 0].tolist() == [False]
    cup = [(0, 3, CUP, 0.9, strip(300, 320))]
    assert match(CUPS, cup, not_exhaustive={CUP})[CUP].ignored[0, 0].tolist() == [True]


@pytest.mark.parametrize("pixels", range(10, 21))
def test_thresholds_drift_upwards(pixels: int) -> None:
    """17, 18 and 19 twentieths do not reach their own."""
    objects = [(0, 1, CUP, 1.0, strip(0, 20))]
    matched = match(objects, [(0, 1, CUP, 1.0, strip(0, pixels))])[CUP].matched[0]
    assert matched.sum() == min(10, pixels - (9 if pixels < 17 else 10))


def test_average_precision() -> None:
    """Wrong, right, of two objects, in two sequences: 1/2 up to recall 1/2, which is 51 of 101."""
    parts = [match(CUPS, [(0, 1, CUP, score, strip(x, x + 20))])[CUP] for score, x in ((0.9, 300), (0.5, 100))]
    ap, ar = average_precision(parts[1:])
    assert ap[0] == pytest.approx([51 / 101] * 10)
    assert ar[0].tolist() == [0.5] * 10
    ap, ar = average_precision(parts)
    assert ap[0] == pytest.approx([26 / 101 / 2] * 10), "one of four objects, behind a wrong one"
    assert (ap[RANGES.index("area_l")] == -1).all()
    assert (ar[RANGES.index("area_l")] == -1).all()
