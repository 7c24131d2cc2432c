"""The sample of image-text pre-training."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionedImage:
    """A window of a frame, and its captions.

    Attributes:
        pixels: RGB of the window; its sides are multiples of CLIP's patch size.
        top: top edge of the window in the frame, pixels, a multiple of the patch size.
        left: left edge of the window in the frame, pixels, a multiple of the patch size.
        captions: names of the objects in the window; a window without captions does not contribute to the loss.

    Raises:
        ValueError: for pixels of another type or shape, or a negative position.
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
