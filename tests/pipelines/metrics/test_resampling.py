from dataclasses import replace

import numpy as np
import pytest

from pipelines.datasets.annotations import GroundTruth, PredictedTrack
from pipelines.metrics.resampling import Ranking, draw, rankings, resampled_ap, resampled_recall
from pipelines.metrics.rules import LVVIS, OPEN_VOCABULARY, UVO, YTVIS, ApRules
from pipelines.metrics.track_matching import match_tracks
from pipelines.metrics.video_ap import video_ap
from tests.pipelines.metrics.tracks import random_data

RULES = [OPEN_VOCABULARY, YTVIS, LVVIS, replace(UVO, forced_category=None)]
NAMES = ["shapes", "ytvis", "lvvis", "agnostic"]


def data(seed: int) -> tuple[GroundTruth, list[PredictedTrack]]:
    """Without equal scores, whose order depends on how videos are numbered."""
    truth, found = random_data(seed)
    return truth, [replace(each, score=each.score + i / 1e4) for i, each in enumerate(found)]


def drawn(
    truth: GroundTruth, found: list[PredictedTrack], times: dict[int, int]
) -> tuple[GroundTruth, list[PredictedTrack]]:
    """Each video as often as it was drawn, under ids of their own."""
    copies = [(video, 100 * video + n) for video, count in times.items() for n in range(count)]
    videos = {video.id: video for video in truth.videos}
    return (
        replace(
            truth,
            videos=tuple(replace(videos[old], id=new) for old, new in copies),
            tracks=tuple(
                replace(each, video_id=new) for old, new in copies for each in truth.tracks if each.video_id == old
            ),
        ),
        [replace(each, video_id=new) for old, new in copies for each in found if each.video_id == old],
    )


def numbers(truth: GroundTruth, found: list[PredictedTrack], rules: ApRules) -> dict[int, float]:
    """AP per category, by its position."""
    its = video_ap(truth, found, replace(rules, partitions=False))
    if not rules.categories:
        return {0: its["AP"]}
    return {k: its[f"AP/cat/{number}"] for k, number in enumerate(sorted(each.id for each in truth.categories))}


@pytest.mark.parametrize("rules", RULES, ids=NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_a_draw_is_what_video_ap_makes_of_the_videos_drawn(seed: int, rules: ApRules) -> None:
    truth, found = data(seed)
    ones = np.ones((1, len(truth.videos)), np.int64)
    weights = np.concatenate([ones, draw(len(truth.videos), 6, seed)])
    its = rankings(truth, found, list(match_tracks(truth, found, rules)), rules)
    values = {category: resampled_ap(ranking, weights) for category, ranking in its.items()}
    for row, counts in enumerate(weights.tolist()):
        times = {video.id: count for video, count in zip(truth.videos, counts, strict=True)}
        for category, expected in numbers(*drawn(truth, found, times), rules).items():
            value = values[category][row] if category in values else -1
            assert value == pytest.approx(expected, abs=1e-12), (row, category)
    assert any(value[0] > 0 for value in values.values())


def test_chunks_of_videos_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, found = data(0)
    weights = draw(len(truth.videos), 5, 0)
    whole = rankings(truth, found, list(match_tracks(truth, found, OPEN_VOCABULARY)), OPEN_VOCABULARY)
    monkeypatch.setattr("pipelines.metrics.track_matching._CHUNK_MASKS", 1)
    parts = rankings(truth, found, list(match_tracks(truth, found, OPEN_VOCABULARY)), OPEN_VOCABULARY)
    assert whole.keys() == parts.keys()
    for category, ranking in whole.items():
        assert resampled_ap(ranking, weights).tolist() == resampled_ap(parts[category], weights).tolist()


def test_draws_are_as_many_videos_as_there_are() -> None:
    weights = draw(7, 50, 0)
    assert weights.shape == (50, 7)
    assert set(weights.sum(1).tolist()) == {7}
    assert len(np.unique(weights, axis=0)) > 40
    assert weights.tolist() == draw(7, 50, 0).tolist() != draw(7, 50, 1).tolist()
    for videos, resamples in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match=f"resamples: {resamples} of {videos} videos"):
            draw(videos, resamples, 0)


@pytest.mark.parametrize(("limit", "expected"), [(1, [1 / 3, 1 / 2, -1]), (2, [1, 1, -1])])
def test_recall_of_the_best_predictions_of_each_video(limit: int, expected: list[float]) -> None:
    """The best prediction of the second video is wrong."""
    right = np.array([[True, False, True, True]])
    ranking = Ranking(videos=np.array([0, 1, 0, 1]), right=right, wrong=~right, objects=np.array([2, 1]))
    weights = np.array([[1, 1], [2, 0], [0, 0]])
    assert resampled_recall(ranking, weights, limit=limit).tolist() == pytest.approx(expected)
