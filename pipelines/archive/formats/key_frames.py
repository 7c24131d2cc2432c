"""Where a track that is drawn as boxes, interpolated between key frames, goes out of sight."""

import math
from collections.abc import Iterator
from itertools import pairwise

from pipelines.archive.formats.video_labels import Row, VideoLabels

_HOLD = 1.5  # steps that a box lasts beyond its frame; a step may vary by one frame

_ROUNDING = 0.1  # by how much the step, computed from the duration, may be too long, frames


def frame_count(video: VideoLabels) -> int:
    """Returns the number of frames of the video's file."""
    stated: float = video.row["duration_s"] * video.row["fps"]
    return max(round(stated), video.frames[-1] + 1)


def key_frames(video: VideoLabels) -> Iterator[tuple[int, list[tuple[Row, int | None]]]]:
    """Yields each track with its masks, and the frame from which the track is out of sight before its next mask.

    That is None where the track is in sight until its next mask or, after the last one, until the end.
    """
    row, size = video.row, frame_count(video)
    # Between labelled frames.
    step, step_s = size / row["expected_frames"], row["duration_s"] / row["expected_frames"]
    period = math.ceil(step - _ROUNDING)
    every_frame = row["expected_frames"] >= size
    end = {"frame": size, "time_s": row["duration_s"]}
    frames_seen = list({mask["frame"]: mask for mask in video.masks}.values())
    following = {mask["frame"]: later for mask, later in pairwise([*frames_seen, end])}

    def hidden_from(mask: Row, later: Row) -> int | None:
        seen = following[mask["frame"]]  # where something was seen next, this track or another
        frames, seconds = seen["frame"] - mask["frame"], seen["time_s"] - mask["time_s"]
        if frames > max(period, _HOLD * step) and (every_frame or seconds > _HOLD * step_s):
            return int(mask["frame"] + period)
        return int(seen["frame"]) if seen["frame"] < later["frame"] else None

    for track, masks in video.masks_of_tracks().items():
        yield track, [(mask, hidden_from(mask, later)) for mask, later in pairwise([*masks, end])]
