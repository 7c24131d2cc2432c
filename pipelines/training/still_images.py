"""Image files that are trained on. Unlike FFmpeg, Pillow notices when a JPEG ends too early; it fills nothing in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from pipelines.video.plan import VideoError

_ORIENTATION = 0x0112  # Exif's tag; 5 to 8 lie on their side


def image_size(path: str) -> tuple[int, int]:
    """Height and width in pixels, upright, by the file's header alone.

    Raises:
        VideoError: names the file, which is not there or no image.
    """
    with _open(path) as image:
        width, height = image.size
        return (width, height) if image.getexif().get(_ORIENTATION, 1) >= 5 else (height, width)


def read_image(path: str) -> UInt8[np.ndarray, "h w 3"]:
    """The image, RGB, upright.

    Raises:
        VideoError: names the file, which is not there, no image, or incomplete.
    """
    with _open(path) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


@contextmanager
def _open(path: str) -> Iterator[Image.Image]:
    if not Path(path).is_file():
        raise VideoError(f"{path} is not there")
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path} is not an image that can be read ({error})") from error
