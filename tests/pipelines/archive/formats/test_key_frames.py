from typing import Any

from pipelines.archive.formats.key_frames import frame_count, key_frames
from pipelines.archive.formats.video_labels import VideoLabels


def video(tracks: dict[int, tuple[int, ...]], **row: Any) -> VideoLabels:
    """Every third of ten frames was looked at."""
    about = {"video_id": "v", "fps": 10.0, "duration_s": 1.0, "expected_frames": 4}
    masks = [
        {"track_id": track, "frame": frame, "time_s": frame / 10}
        for track, frames in tracks.items()
        for frame in frames
    ]
    masks.sort(key=lambda mask: mask["frame"])
    frames = sorted({mask["frame"] for mask in masks})
    return VideoLabels(row=about | row, tracks={track: {} for track in tracks}, masks=masks, frames=frames)


def hidden(labels: VideoLabels) -> dict[int, list[tuple[int, int | None]]]:
    return {track: [(mask["frame"], end) for mask, end in frames] for track, frames in key_frames(labels)}


def test_a_track_is_hidden_where_another_is_seen_alone() -> None:
    assert hidden(video({0: (0, 3, 6), 1: (0, 6, 9)})) == {
        0: [(0, None), (3, None), (6, 9)],
        1: [(0, 3), (6, None), (9, None)],
    }


def test_a_track_lasts_one_step_where_nothing_is_seen_after_it() -> None:
    assert hidden(video({0: (0, 9)})) == {0: [(0, 3), (9, None)]}


def test_a_last_frame_that_is_held_adds_none() -> None:
    """Ten frames, a tenth of a second each, but the last one five seconds: all were looked at."""
    held = {"fps": 10 / 5.9, "duration_s": 5.9, "expected_frames": 10}
    labels = video({0: (0, 1, 2, 5, 6)}, **held)
    assert frame_count(labels) == 10
    assert hidden(labels) == {0: [(0, None), (1, None), (2, 3), (5, None), (6, 7)]}


def test_a_frame_behind_the_stated_end_counts() -> None:
    assert frame_count(video({0: (0,)})) == 10
    assert frame_count(video({0: (0, 12)})) == 13
