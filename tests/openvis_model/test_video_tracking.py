import numpy as np
import torch

from openvis_model.instances import Instances
from openvis_model.options import AssociationConfig, VideoTrackerConfig
from openvis_model.rle import RleMasks
from openvis_model.video_tracker import VideoTracker
from openvis_model.video_tracking import VideoTracking
from openvis_model.vocabulary import VocabularyEmbedding

TRACKER = VideoTracker(
    VideoTrackerConfig(association=AssociationConfig(kind="hungarian"), max_gap=1),
    VocabularyEmbedding(("star", "disc"), torch.eye(2), logit_scale=1.0),
)


def instances(*tokens: int) -> Instances:
    n = len(tokens)
    masks = RleMasks((6, 8), (b"",) * n, np.full(n, 4), np.tile([0, 0, 2, 2], (n, 1)))
    index = torch.tensor(tokens, dtype=torch.long)
    return Instances(torch.full((n,), 0.8), torch.eye(2)[index], torch.eye(2)[index], index, torch.zeros(n, 3), masks)


def test_one_tracker_serves_many_videos() -> None:
    one, other = VideoTracking(TRACKER), VideoTracking(TRACKER)
    assert one.add(0, instances(0)).track_ids.tolist() == [0]
    assert other.add(5, instances(1, 0)).track_ids.tolist() == [0, 1]
    assert one.add(1, instances(1, 0)).track_ids.tolist() == [1, 0]
    assert [track.category for track in one.tracks_so_far(np.array([0, 1]))] == ["star", "disc"]
    assert [(track.track_id, track.frames) for track in one.finish()] == [(0, 2), (1, 1)]
    assert [track.first_frame for track in other.finish()] == [5, 5]


def test_tracking_resumes_from_a_state() -> None:
    first = VideoTracking(TRACKER)
    first.add(0, instances(0, 1))
    second = VideoTracking(TRACKER, first.state)
    assert second.add(1, instances(1)).track_ids.tolist() == [1]
    assert [track.track_id for track in second.add(2, instances(1)).ended] == [0]


def test_a_cut_ends_all_tracks() -> None:
    one, other = (np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8) for seed in (0, 1))
    tracking = VideoTracking(TRACKER)
    tracking.add(0, instances(0, 1), one)
    cut = tracking.add(1, instances(0, 1), other // 4)
    assert cut.begins_shot
    assert [track.track_id for track in cut.ended] == [0, 1]
    assert cut.track_ids.tolist() == [2, 3]
    resumed = VideoTracking(TRACKER, tracking.state, tracking.shots)
    assert resumed.add(2, instances(0, 1), one).track_ids.tolist() == [4, 5]
    assert [track.track_id for track in resumed.finish()] == [4, 5]
    assert not resumed.add(3, instances(0), other // 4).begins_shot


def test_without_thumbnails_no_cut_is_looked_for() -> None:
    tracking = VideoTracking(TRACKER)
    assert tracking.add(0, instances(0)).track_ids.tolist() == [0]
    assert not tracking.add(1, instances(0)).begins_shot
