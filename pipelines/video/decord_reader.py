"""Reads frames with decord, which is faster than PyAV, for files where it is exact."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, Int64, UInt8

try:
    import decord

    decord.logging.set_level(decord.logging.QUIET)
except ImportError:  # not available on every platform; PyAV reads every file that decord does
    decord = None

_MAX_FRAMES = 10_000  # decord reads the whole index each time it opens a file


def decord_agrees(path: str, times_s: Float64[np.ndarray, "F"]) -> bool:
    """Checks that decord can open the file and finds frames at the same times."""
    if decord is None or len(times_s) > _MAX_FRAMES:
        return False
    try:
        reader = decord.VideoReader(path, num_threads=1)
        if len(reader) != len(times_s):
            return False
        decord_times_s = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    except (decord.DECORDError, RuntimeError):
        return False
    return bool(np.allclose(decord_times_s - decord_times_s[0], times_s, rtol=1e-5, atol=1e-3))


def decord_frames(
    path: str, frames: Int64[np.ndarray, "F"], size: tuple[int, int]
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yields the frames at these positions, resized to `size` (height, width), pixels; stops where decord fails."""
    try:
        reader = decord.VideoReader(path, height=size[0], width=size[1], num_threads=1)
        for frame in frames.tolist():
            reader.seek_accurate(frame)
            yield reader.next().asnumpy()
    except (decord.DECORDError, RuntimeError):
        return
