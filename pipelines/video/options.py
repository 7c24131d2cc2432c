"""Options of reading videos; imports nothing, so that a job's `--help` is there at once."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which frames of a video to keep: all, every `stride`-th, or `fps` a second.

    Attributes:
        fps: frames per second: keeps, for each k, the first frame at or after k / fps seconds. Null keeps all.
        stride: keeps frames 0, stride, 2 · stride, …
        also: positions of further frames to keep.
        also_s: times, seconds, at which a player shows further frames to keep.

    Raises:
        ValueError: for a value out of range, or if both fps and stride are given.
    """

    fps: float | None = None
    stride: int = 1
    also: tuple[int, ...] = ()
    also_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps: is {self.fps}; give a number above 0")
        if self.stride < 1:
            raise ValueError(f"stride: is {self.stride}; give 1 or more")
        if self.fps is not None and self.stride > 1:
            raise ValueError(f"fps and stride: are {self.fps} and {self.stride}; give one of the two")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the decoder of a video may use.

    Attributes:
        silence_s: longest wait for a sign of life, such as a decoded frame, seconds.
        total_s: longest total wait for the index or for one segment, seconds.
        memory_bytes: memory of the decoding process, on Linux.
    """

    silence_s: float = 120.0
    total_s: float = 3600.0
    memory_bytes: int = 4 * 10**9
