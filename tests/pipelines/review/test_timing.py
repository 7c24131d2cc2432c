import numpy as np
import pyarrow as pa

from pipelines.review.timing import ends_of, frames_by_track, runs_of


def test_masks_are_shown_to_the_next_frame_or_for_a_period() -> None:
    """Every second frame of ten a second; none between 0.4 and 1.0 s."""
    frames = np.array([0, 2, 4, 10, 12], np.int32)
    ends = ends_of(frames, frames / 10, 0.1)
    assert ends.round(6).tolist() == [0.2, 0.4, 0.6, 1.2, 1.4]
    assert runs_of(frames / 10, ends) == [(0.0, ends[2]), (1.0, ends[4])]
    assert ends_of(frames[:1], frames[:1] / 10, 0.1).tolist() == [0.1]
    assert runs_of(np.zeros(0), np.zeros(0)) == []


def test_frames_are_those_of_each_track() -> None:
    masks = pa.table({"track_id": [1, 3, 1], "frame": [0, 0, 2]})
    assert {track: frames.tolist() for track, frames in frames_by_track(masks).items()} == {1: [0, 2], 3: [0]}
    assert frames_by_track(masks.slice(0, 0)) == {}
