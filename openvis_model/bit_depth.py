"""Images of more than 8 bits a channel. Imports no torch."""

import numpy as np
from PIL import Image


def eight_bit(image: Image.Image) -> Image.Image:
    """Returns an image with 8 bits a channel; of 16, Pillow would cut off all above 255.

    Raises:
        ValueError: it has 32 bits.
    """
    if image.mode in ("I", "F"):
        raise ValueError("has 32 bits a pixel; save it with 8 or 16")
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image
