"""Augmentation of training clips: a random window of the frame, mirroring, resizing and colour changes.

All frames of a clip get the same augmentation, and so do their masks: only motion of the video remains. Clips of one
still image draw a window per frame, as if a camera moved.

The module needs numpy and Pillow alone.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped, UInt8
from PIL import Image

MIN_VISIBLE = 12
"""Objects with a smaller visible area, in pixels of the finished frame, count as absent."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


class Window(NamedTuple):
    """A rectangle of a frame, in pixels, and whether it is mirrored left to right."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


class Colour(NamedTuple):
    """Factors, of which 1 changes nothing, and a hue shift, of which 0 changes nothing.

    Contrast scales around the clip's mean grey, saturation around each pixel's grey. Hue is a fraction of a full turn
    around the axis of greys.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """How far clips are varied. Use hue for proposals alone: a name may depend on the colour.

    Attributes:
        min_crop: smallest height of the crop, as a fraction of the largest crop with the aspect ratio of the finished
            frame; 1 always takes the largest crop, centred.
        flip: probability of mirroring a clip left to right.
        brightness: the brightness factor is drawn from 1 - brightness to 1 + brightness.
        contrast: the contrast factor is drawn from 1 - contrast to 1 + contrast.
        saturation: the saturation factor is drawn from 1 - saturation to 1 + saturation.
        hue: the hue shift is drawn from -hue to hue, in turns, at most 0.5.

    Raises:
        ValueError: a field is out of range.
    """

    min_crop: float = 1.0
    flip: float = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.min_crop <= 1:
            raise ValueError(f"min_crop: expected above 0, to 1 (no random crop), got {self.min_crop}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip: expected a probability, 0 to 1, got {self.flip}")
        for name in ("brightness", "contrast", "saturation"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name}: expected 0 (no change) to below 1, got {value}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue: expected 0 (no change) to 0.5 (any hue), got {self.hue}")


def draw_windows(
    count: int,
    frame: tuple[int, int],
    size: tuple[int, int],
    config: AugmentationConfig,
    rng: np.random.Generator,
    *,
    still: bool,
) -> list[Window]:
    """Draws the windows of a clip: the same one for all frames of a video, one per frame of a still image.

    All windows of a clip are mirrored, or none is.

    Args:
        count: frames of the clip.
        frame: height and width of the video, pixels.
        size: height and width of the finished frames, pixels; windows have this aspect ratio, up to rounding.
        config: range of the windows.
        rng: source of randomness.
        still: whether the clip is one image.
    """
    flip = bool(rng.random() < config.flip)
    if not still:
        return [_draw_window(frame, size, config.min_crop, flip, rng)] * count
    return [_draw_window(frame, size, config.min_crop, flip, rng) for _ in range(count)]


def _draw_window(
    frame: tuple[int, int], size: tuple[int, int], min_crop: float, flip: bool, rng: np.random.Generator
) -> Window:
    share, down, right = min_crop + (1 - min_crop) * rng.random(), rng.random(), rng.random()
    if min_crop == 1:
        down = right = 0.5
    scale = share * min(frame[0] / size[0], frame[1] / size[1])
    height, width = (min(limit, max(1, round(side * scale))) for side, limit in zip(size, frame, strict=True))
    return Window(int(down * (frame[0] - height + 1)), int(right * (frame[1] - width + 1)), height, width, flip)


def draw_colour(config: AugmentationConfig, rng: np.random.Generator) -> Colour:
    """Draws the colour change of a clip."""
    brightness, contrast, saturation, hue = 2 * rng.random(4) - 1
    return Colour(
        1 + config.brightness * brightness,
        1 + config.contrast * contrast,
        1 + config.saturation * saturation,
        config.hue * hue,
    )


def view_frame(frame: UInt8[np.ndarray, "h w 3"], window: Window, size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """Cuts the window out of a frame and resizes it: bilinear, antialiased."""
    return _resize(_cut(frame, window), size, Image.Resampling.BILINEAR)


def view_mask(mask: UInt8[np.ndarray, "h w"], window: Window, size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """Cuts the window out of a mask (0 or 1) and resizes it; keeps pixels that are covered by half or more."""
    part = _cut(mask, window)
    if not part.any():
        return np.zeros(size, bool)
    return _resize(part * np.uint8(255), size, Image.Resampling.BOX) >= 128


def recolour(frames: UInt8[np.ndarray, "T H W 3"], colour: Colour) -> UInt8[np.ndarray, "T H W 3"]:
    """Changes the brightness, contrast, saturation and hue of a clip, alike in all frames."""
    if tuple(colour) == (1, 1, 1, 0):
        return frames
    pixels = frames.astype(np.float32) * np.float32(colour.brightness)
    mean = (pixels.mean((0, 1, 2), dtype=np.float64) @ _LUMA.astype(np.float64)).astype(np.float32)
    pixels = mean + (pixels - mean) * np.float32(colour.contrast)
    grey = (pixels @ _LUMA)[..., None]
    pixels = grey + (pixels - grey) * np.float32(colour.saturation)
    if colour.hue:
        pixels = pixels @ _turn(colour.hue)
    recoloured: np.ndarray = np.rint(pixels.clip(0, 255)).astype(np.uint8)
    return recoloured


def _turn(hue: float) -> Float32[np.ndarray, "3 3"]:
    """Rotation of RGB row vectors around the axis of greys; a third of a turn makes red green."""
    cosine, sine = np.cos(2 * np.pi * hue), np.sin(2 * np.pi * hue)
    cyclic = np.roll(np.eye(3), 1, axis=1)
    turn: np.ndarray = cosine * np.eye(3) + (1 - cosine) / 3 + sine / np.sqrt(3) * (cyclic - cyclic.T)
    return turn.astype(np.float32)


def drop_invisible(
    masks: Bool[np.ndarray, "N T H W"],
) -> tuple[Bool[np.ndarray, "O T H W"], Int64[np.ndarray, "O"]]:
    """Clears masks that are too small to recognise, and drops objects that are visible in no frame.

    Returns:
        The masks of the O other objects, and which of the N they are.
    """
    visible = np.count_nonzero(masks, (2, 3)) >= MIN_VISIBLE
    kept = visible.any(1)
    return masks[kept] & visible[kept][..., None, None], np.flatnonzero(kept)


def _cut(image: Shaped[np.ndarray, "h w *c"], window: Window) -> Shaped[np.ndarray, "a b *c"]:
    top, left, height, width, flip = window
    part = image[top : top + height, left : left + width]
    return np.ascontiguousarray(part[:, ::-1] if flip else part)


def _resize(
    image: UInt8[np.ndarray, "h w *c"], size: tuple[int, int], how: Image.Resampling
) -> UInt8[np.ndarray, "H W *c"]:
    return image if image.shape[:2] == size else np.array(Image.fromarray(image).resize(size[::-1], how))
