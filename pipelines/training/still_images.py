"""Reads image files with Pillow, which refuses a truncated JPEG where FFmpeg would fill in the rest."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from openvis_model.bit_depth import eight_bit
from pipelines.video.plan import VideoError

_ORIENTATION = 0x0112  # Exif tag; values 5 to 8 are turned by 90 degrees


def image_size(path: str) -> tuple[int, int]:
    """Reads the upright height and width in pixels from the file's header.

    Raises:
        VideoError: the file is missing or not an image; names it.
    """
    with _open(path) as image:
        width, height = image.size
        return (width, height) if image.getexif().get(_ORIENTATION, 1) >= 5 else (height, width)


def read_image(path: str) -> UInt8[np.ndarray, "h w 3"]:
    """Reads the image upright, as RGB.

    Raises:
        VideoError: the file is missing, not an image, or incomplete; names it.
    """
    with _open(path) as image:
        return np.array(eight_bit(ImageOps.exif_transpose(image)).convert("RGB"))


@contextmanager
def _open(path: str) -> Iterator[Image.Image]:
    if not Path(path).is_file():
        raise VideoError(f"{path} is not there")
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path} is not an image that can be read ({error})") from error
