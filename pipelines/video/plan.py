"""What is known of a video before it is decoded, and which of its frames are kept."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64


class VideoError(ValueError):
    """A video that cannot be read; the message is a reason for people, to stand in a table beside the video's name."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which frames of a video to keep: all, every `stride`-th, or `fps` a second.

    Attributes:
        fps: Frames per second: for each k the first frame at or after k / fps seconds, once. None is all.
        stride: Keeps frames 0, stride, 2 · stride, …
    """

    fps: float | None = None
    stride: int = 1

    def __post_init__(self) -> None:
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps: is {self.fps}; give a number above 0")
        if self.stride < 1:
            raise ValueError(f"stride: is {self.stride}; give 1 or more")
        if self.fps is not None and self.stride > 1:
            raise ValueError(f"fps and stride: are {self.fps} and {self.stride}; give one of the two")

    def select(self, times_s: Float64[np.ndarray, "F"], tolerance_s: float) -> Int64[np.ndarray, "K"]:
        """Returns the positions to keep among frames at increasing times; times are exact to the tolerance."""
        if self.fps is None:
            return np.arange(0, len(times_s), self.stride)
        ticks = np.floor((times_s + tolerance_s) * self.fps)
        return np.flatnonzero(np.diff(ticks, prepend=-np.inf) > 0)


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video is.

    Attributes:
        frames: Frames that the file holds.
        missing_frames: Further frames that its header promises; above 0 if it was cut off. Estimated in Matroska.
        fps: Average frames per second.
        width: Pixels, after rotation.
        height: Pixels, after rotation.
        duration_s: Seconds from the first frame's start to the last one's end.
        rotation: Degrees counter-clockwise by which frames are turned to be upright: 0, 90, 180, 270.
        codec: FFmpeg's name of the codec; `images` for a folder.
        reader: Who decodes it.
        timestamps: Whether frames are found by timestamp; otherwise by counting from the start of the file.
    """

    frames: int
    missing_frames: int = 0
    fps: float
    width: int
    height: int
    duration_s: float
    rotation: int = 0
    codec: str
    reader: Literal["decord", "pyav", "images"]
    timestamps: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """Frames to keep of one stretch of a video, which can be decoded without the stretches before it.

    Attributes:
        index: Position among the video's segments.
        frames: Positions in the video, in order of presentation.
        times_s: Seconds since the video's first frame.
        pts: Their presentation timestamps in the file, in ticks.
        start_pts: Timestamp of the key frame where decoding starts; None is the start of the file.
        seek: Timestamp that leads there.
    """

    index: int
    frames: Int64[np.ndarray, "F"]
    times_s: Float64[np.ndarray, "F"]
    pts: Int64[np.ndarray, "F"]
    start_pts: int | None = None
    seek: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoPlan:
    """A video and its segments, each with at least one frame."""

    info: VideoInfo
    segments: tuple[Segment, ...]
