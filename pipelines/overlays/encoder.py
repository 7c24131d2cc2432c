"""Encodes frames as H.264, 4:2:0, in MP4, which every browser plays."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from jaxtyping import UInt8

MASTER = {"crf": "20", "preset": "veryfast"}
"""Looks like the frames."""

PREVIEW = {"crf": "27", "preset": "veryfast", "g": "48"}
"""Fewer bytes, and a key frame at least every 48 frames, so that players step back at once."""

_TAGS = {  # make players show the same colours
    "colorspace": Colorspace.ITU709,
    "color_range": ColorRange.MPEG,
    "color_primaries": ColorPrimaries.BT709,
    "color_trc": ColorTrc.BT709,
}


@contextmanager
def encoder(
    path: Path, rate: Fraction, size: tuple[int, int], options: Mapping[str, str] = MASTER
) -> Iterator[Callable[[UInt8[np.ndarray, "H W 3"], float], None]]:
    """Provides a function that encodes a frame, to be shown at a time in seconds; the file is complete after the block.

    Args:
        path: an .mp4 file.
        rate: typical frames per second.
        size: height and width of the frames, pixels; odd ones repeat the last row or column.
        options: of x264.
    """
    ticks, last = rate.numerator * -(-10_000 // rate.numerator), -1  # per second; integers at a constant frame rate
    padding = ((0, size[0] % 2), (0, size[1] % 2), (0, 0))
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=dict(options))
        stream.height, stream.width, stream.pix_fmt = size[0] + size[0] % 2, size[1] + size[1] % 2, "yuv420p"
        stream.codec_context.time_base = Fraction(1, ticks)
        for tag, value in _TAGS.items():
            setattr(stream.codec_context, tag, value)

        def encode(image: UInt8[np.ndarray, "H W 3"], time_s: float) -> None:
            nonlocal last
            frame = av.VideoFrame.from_ndarray(np.pad(image, padding, mode="edge"), format="rgb24")
            frame = frame.reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=Interpolation.AREA,  # keeps half-resolution colour closest to the original
            )
            last = max(last + 1, round(time_s * ticks))
            frame.pts, frame.time_base = last, Fraction(1, ticks)
            container.mux(stream.encode(frame))

        yield encode
        container.mux(stream.encode())
