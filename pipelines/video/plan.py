"""What is known about a video before it is decoded, and which of its frames are kept."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from pipelines.video.options import Sampling

ROUNDING_S = 1e-3
"""What times that are written down by hand are rounded to, seconds."""


class VideoError(ValueError):
    """A video that cannot be read; the message is the reason, to be shown beside the video's name.

    Bytes of file names that are no UTF-8, which no table could hold, are escaped.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason.encode(errors="backslashreplace").decode())


class MachineError(RuntimeError):
    """A video could not be read because of this machine; another one may read it, or this one later."""


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """Description of a video.

    Attributes:
        frames: number of frames in the file.
        missing_frames: further frames according to the header; above 0 if the file is cut off. Estimated for Matroska.
        cut_off: whether the file is shorter than its container says.
        fps: average frames per second.
        width: pixels, after rotation.
        height: pixels, after rotation.
        duration_s: seconds from the start of the first frame to the end of the last.
        codec: FFmpeg's name of the codec; `images` for a folder.
        timestamps: whether frames are identified by timestamp; otherwise by counting from the start of the file.
    """

    frames: int
    missing_frames: int = 0
    cut_off: bool = False
    fps: float
    width: int
    height: int
    duration_s: float
    codec: str
    timestamps: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """The kept frames of one stretch of a video, which can be decoded without the stretches before it.

    Attributes:
        index: position among the video's segments.
        frames: positions in the video, in order of presentation.
        times_s: seconds since the video's first frame.
        pts: presentation timestamps in the file, in ticks.
        start_pts: timestamp of the key frame where decoding starts; None is the start of the file.
        seek: timestamp to seek to in order to reach that key frame.
    """

    index: int
    frames: Int64[np.ndarray, " F"]
    times_s: Float64[np.ndarray, " F"]
    pts: Int64[np.ndarray, " F"]
    start_pts: int | None = None
    seek: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoPlan:
    """A video and its segments, each with at least one frame."""

    info: VideoInfo
    segments: tuple[Segment, ...]


def select(sampling: Sampling, times_s: Float64[np.ndarray, " F"], tolerance_s: float) -> Int64[np.ndarray, "K"]:
    """Returns the positions of the frames to keep.

    Args:
        sampling: what to keep.
        times_s: time of each frame, increasing, seconds.
        tolerance_s: rounding error of the times, seconds.
    """
    if sampling.fps is None:
        return with_further(sampling, np.arange(0, len(times_s), sampling.stride), times_s)
    ticks = np.floor((times_s + tolerance_s) * sampling.fps)
    return with_further(sampling, np.flatnonzero(np.diff(ticks, prepend=-np.inf) > 0), times_s)


def with_further(
    sampling: Sampling, kept: Int64[np.ndarray, "K"], times_s: Float64[np.ndarray, " F"]
) -> Int64[np.ndarray, "L"]:
    """Returns positions and those of the further frames, of which none beyond the end; arguments as `select`."""
    shown = np.searchsorted(times_s, np.array(sampling.also_s) + ROUNDING_S, side="right") - 1
    further = np.concatenate([shown, np.array(sampling.also, np.int64)])
    return np.union1d(kept, further[further < len(times_s)]).astype(np.int64)
