"""What image-text pre-training looks at."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionedImage:
    """A picture, taken as a window of a frame, and its captions.

    Attributes:
        pixels: RGB; as large as the frame or smaller, a multiple of CLIP's patches.
        top: of the window in the frame, pixels, a multiple of CLIP's patches.
        left: likewise.
        captions: names of what is in it; without any, the picture teaches nothing.

    Raises:
        ValueError: for pixels of another type or shape, or a place outside of every frame.
    """

    pixels: UInt8[np.ndarray, "H W 3"]
    top: int
    left: int
    captions: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[-1] != 3:
            raise ValueError(f"pixels: expected uint8 [H, W, 3], got {self.pixels.dtype} {self.pixels.shape}")
        if min(self.top, self.left) < 0:
            raise ValueError(f"top, left: must not be negative, got {self.top} and {self.left}")
