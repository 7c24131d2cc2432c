import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from pipelines.metrics.frame_matching import FramePairs, assign, match


def pairs_of(similarity: np.ndarray, gt: np.ndarray, predicted: np.ndarray) -> FramePairs:
    """Frames with so many objects and predictions, whose ids have no meaning."""
    return FramePairs(
        gt_ids=np.zeros(gt.sum(), np.int64),
        prediction_ids=np.zeros(predicted.sum(), np.int64),
        gt_counts=gt,
        prediction_counts=predicted,
        similarity=similarity,
    )


@pytest.mark.parametrize("seed", range(3))
def test_frames_are_matched_as_one_by_one(seed: int) -> None:
    """Few different scores give many ties, as duplicates of a track do."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(400):
        shape = rng.integers(0, 9, 2)
        choices = [np.zeros(1), np.arange(3) / 4, rng.random(4), rng.random(1000)][rng.integers(4)]
        frames.append(rng.choice(choices, shape))
    gt_counts, prediction_counts = np.array([frame.shape for frame in frames]).T
    scores = np.concatenate([frame.ravel() for frame in frames])
    matched = assign(pairs_of(scores, gt_counts, prediction_counts), scores)
    expected = []
    for frame in frames:
        chosen = np.zeros(frame.shape, bool)
        chosen[linear_sum_assignment(frame, maximize=True)] = True
        expected += (chosen & (frame > 0)).ravel().tolist()
    assert matched.tolist() == expected


def test_tracks_that_are_aligned_are_matched() -> None:
    """In the last frame, the first track has more in common with the second prediction, but not in the sequence."""
    similarity = np.array([0.9, 0.1, 0.9, 0.1, 0.6, 0.7])
    ids = np.array([0, 1, 0, 1, 0, 1])
    counts, twice = np.ones(3, np.int64), np.full(3, 2)
    matched = match(pairs_of(similarity, counts, twice), np.zeros(3, np.int64), ids)
    assert matched.tolist() == [True, False, True, False, True, False]


def test_frames_may_lack_either_side() -> None:
    gt_counts, prediction_counts = np.array([0, 2, 1]), np.array([1, 0, 1])
    frames = pairs_of(np.array([0.5]), gt_counts, prediction_counts)
    matched = match(frames, np.array([0, 1, 0]), np.array([0, 0]))
    assert matched.tolist() == [True]
    none = np.zeros(0, np.int64)
    assert len(match(pairs_of(np.zeros(0), none, none), none, none)) == 0
