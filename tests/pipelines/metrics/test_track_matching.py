import numpy as np
import pytest

from pipelines.metrics import track_matching
from pipelines.metrics.rules import LVVIS, UVO, YTVIS
from pipelines.metrics.track_matching import Matches, match_tracks
from tests.pipelines.metrics.tracks import guess, random_data, strip, track, truth


def only(matches: list[Matches]) -> Matches:
    (one,) = matches
    return one


def test_everything_an_analysis_needs() -> None:
    """A right label, a wrong label, a duplicate, something badly placed, and background."""
    ground_truth = truth(
        track([strip(0, 20)], number=5),
        track([strip(100, 120)], number=7, category=2),
        categories=[1, 2],
        videos=[3, 1],
    )
    predictions = [
        guess([strip(0, 20)], 0.6),
        guess([strip(0, 15)], 0.9),
        guess([strip(100, 119)], 0.8),
        guess([strip(15, 35)], 0.7, category=2),
        guess([strip(300, 320)], 0.1, video=3),
    ]
    matches = only(list(match_tracks(ground_truth, predictions, YTVIS, pairs="video")))
    assert matches.ground_truths.tolist() == [0, 1]
    assert matches.ground_truth_categories.tolist() == [0, 1]
    assert matches.predictions.tolist() == [1, 2, 0, 3, 4]
    assert matches.prediction_categories.tolist() == [0, 0, 0, 1, 0]
    assert matches.scores.tolist() == [0.9, 0.8, 0.6, 0.7, 0.1]
    assert matches.ranks.tolist() == [0, 1, 2, 0, 0]
    assert matches.matched[0, 0].tolist() == [0, -1, -1, -1, -1]
    assert matches.matched[0, 6].tolist() == [-1, -1, 0, -1, -1], "0.75 is below the seventh threshold"
    assert matches.ground_truth_ignored.tolist() == [[False] * 2, [False] * 2, [True] * 2, [True] * 2]
    assert matches.out_of_range[:, 0].tolist() == [False, False, True, True]
    overlaps = {(g, p): iou for (g, p), iou in zip(matches.pairs.tolist(), matches.ious.tolist(), strict=True)}
    assert len(overlaps) == 2 * 4, "none with the other video"
    assert overlaps[0, 0] == 0.75
    assert overlaps[1, 1] == 0.95, "the wrong label can be seen"
    assert overlaps[0, 3] == 0, "too little for a wrong label to be a right one"
    assert matches.followed.tolist() == [1, 0, 1, 0, 0]

    within = only(list(match_tracks(ground_truth, predictions, YTVIS)))
    assert within.pairs.tolist() == [[0, 0], [0, 1], [0, 2], [1, 3]]
    assert within.matched.tolist() == matches.matched.tolist()


def test_chunks_and_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    ground_truth, predictions = random_data(0)
    for rules in (YTVIS, LVVIS, UVO):
        whole = only(list(match_tracks(ground_truth, predictions, rules)))
        with monkeypatch.context() as patch:
            patch.setattr(track_matching, "_CHUNK_MASKS", 1)
            parts = list(match_tracks(ground_truth, predictions, rules, threads=2 if rules is YTVIS else 1))
        assert len(parts) > 3
        assert np.concatenate([part.predictions for part in parts]).tolist() == whole.predictions.tolist()
        assert np.concatenate([part.ground_truths for part in parts]).tolist() == whole.ground_truths.tolist()
        assert np.concatenate([part.ious for part in parts]).tolist() == whole.ious.tolist()
        before = np.cumsum([0, *(len(part.ground_truths) for part in parts)])
        shifted = [np.where(part.matched < 0, -1, part.matched + n) for part, n in zip(parts, before, strict=False)]
        np.testing.assert_array_equal(np.concatenate(shifted, 2), whole.matched)


def test_predictions_beyond_the_limit_are_left_out() -> None:
    ground_truth = truth(track([strip(0, 20)]), categories=[1, 2])
    predictions = [guess([strip(0, 20)], 1 - i / 1000, category=1 + i % 2) for i in range(150)]
    assert len(only(list(match_tracks(ground_truth, predictions, YTVIS))).predictions) == 150
    agnostic = only(list(match_tracks(ground_truth, predictions, UVO)))
    assert agnostic.predictions.tolist() == list(range(100))


def test_no_videos_no_matches() -> None:
    nothing = only(list(match_tracks(truth(categories=[], videos=[]), [], YTVIS)))
    assert nothing.matched.shape == (4, 10, 0)
    assert nothing.pairs.shape == (0, 2)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="video id 9 .*truth.json"):
        list(match_tracks(truth(), [guess([None], video=9)], YTVIS))
    with pytest.raises(ValueError, match="threads: is 0"):
        list(match_tracks(truth(), [], YTVIS, threads=0))
