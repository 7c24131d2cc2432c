"""Objects drawn on a frame: translucent masks, crisp contours, labels that stay readable."""

import colorsys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import cast

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFilter, ImageFont

_FILL = 0.45  # opacity of a mask


_Box = tuple[int, int, int, int]  # left, top, right, bottom, pixels; the last two are the first outside


@dataclass(frozen=True, kw_only=True)
class DrawnObject:
    """An object in one frame. The score is its track's, 0 to 1."""

    track_id: int
    name: str
    score: float
    mask: Bool[np.ndarray, "H W"]


def track_colour(track_id: int) -> tuple[int, int, int]:
    """RGB of a track: golden-ratio steps around the hues keep any few consecutive ids far apart."""
    saturation, value = ((0.80, 1.0), (0.55, 1.0), (0.85, 0.8))[track_id % 3]
    red, green, blue = colorsys.hsv_to_rgb(track_id * 0.6180339887498949 % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(frame: UInt8[np.ndarray, "H W 3"], objects: Sequence[DrawnObject]) -> UInt8[np.ndarray, "H W 3"]:
    """Returns the frame with its objects drawn in: smaller ones over larger ones, labels over all of them.

    Nothing outside of masks and labels changes. An object with an empty mask is left out.

    Raises:
        ValueError: a mask has another size than the frame.
    """
    _check_masks(frame, objects)
    canvas = Image.fromarray(frame)
    visible = sorted((each for each in objects if each.mask.any()), key=lambda each: -int(each.mask.sum()))
    boxes = {each.track_id: _paint(canvas, each) for each in visible}
    taken: list[_Box] = []
    for each in sorted(visible, key=lambda each: each.track_id):
        taken.append(_write(canvas, each, boxes[each.track_id], taken))
    return np.array(canvas)


def draw_scaled(
    frame: UInt8[np.ndarray, "H W 3"], objects: Sequence[DrawnObject], size: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """Draws on the frame at another size, so that lines and labels are as crisp there."""
    if frame.shape[:2] == size:
        return draw(frame, objects)
    _check_masks(frame, objects)

    def resize(image: np.ndarray) -> Image.Image:
        return Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)

    blur = ImageFilter.GaussianBlur(max(0.0, 0.7 * (size[0] / frame.shape[0] - 1)))  # or enlarged pixels would show
    masks = [np.asarray(resize(each.mask.astype(np.uint8) * np.uint8(255)).filter(blur)) > 127 for each in objects]
    resized = [replace(each, mask=mask) for each, mask in zip(objects, masks, strict=True)]
    return draw(np.asarray(resize(frame)), resized)


@cache
def label_font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font in a size given in pixels; it has ASCII characters only."""
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))


def shorten(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """As much of a text as fits into this many pixels."""
    shorter = (text[:end].rstrip() + "…" * (end < len(text)) for end in range(len(text), 0, -1))
    return next((each for each in shorter if font.getlength(each) <= room), "")


def _check_masks(frame: UInt8[np.ndarray, "H W 3"], objects: Sequence[DrawnObject]) -> None:
    for each in objects:
        if each.mask.shape != frame.shape[:2]:
            raise ValueError(f"mask of track {each.track_id}: expected {frame.shape[:2]} pixels, got {each.mask.shape}")


def _paint(canvas: Image.Image, each: DrawnObject) -> _Box:
    """Paints a mask and, within it, its contour; returns its bounding box. The frame's edge is no contour."""
    rows, columns = (np.flatnonzero(each.mask.any(axis)) for axis in (1, 0))
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    height, width = each.mask.shape
    line = max(2, round(height / 400))
    left, top = max(0, box[0] - line), max(0, box[1] - line)
    mask = each.mask[top : min(height, box[3] + line), left : min(width, box[2] + line)]
    core = np.pad(mask, line, mode="edge")
    for _ in range(line):
        inner = core[1:-1, 1:-1]
        core = inner & core[:-2, 1:-1] & core[2:, 1:-1] & core[1:-1, :-2] & core[1:-1, 2:]
    opacity = np.where(core, np.uint8(255 * _FILL), np.uint8(255)) * mask
    canvas.paste(track_colour(each.track_id), (left, top), Image.fromarray(opacity))
    return box


def _write(canvas: Image.Image, each: DrawnObject, box: _Box, taken: Sequence[_Box]) -> _Box:
    """Writes the label of an object with this bounding box, if possible clear of boxes taken; returns its own box."""
    font = label_font(max(13, round(canvas.height / 40)))
    ascent, descent = font.getmetrics()
    pad = max(3, ascent // 4)
    plain = unicodedata.normalize("NFKD", each.name).encode("ascii", "ignore").decode()  # the font has no more
    score = f"{each.score:.2f}"
    name = shorten(plain or each.name, font, canvas.width - 2 * pad - font.getlength(f"{each.track_id}  {score}"))
    text = " ".join(part for part in (str(each.track_id), name, score) if part)
    size = min(canvas.width, round(font.getlength(text)) + 2 * pad), ascent + descent + pad
    spot = _place(box, size, canvas.size, taken)
    colour, pen = track_colour(each.track_id), ImageDraw.Draw(canvas)
    pen.rectangle((spot[0], spot[1], spot[2] - 1, spot[3] - 1), colour)
    luminance = np.dot((0.299, 0.587, 0.114), colour)
    pen.text((spot[0] + pad, (spot[1] + spot[3]) / 2), text, "black" if luminance > 120 else "white", font, "lm")
    return spot


def _place(box: _Box, size: tuple[int, int], frame: tuple[int, int], taken: Sequence[_Box]) -> _Box:
    """Where in the frame a label of this size covers least of the boxes taken; the nearest to its object if several."""
    left, top, right, bottom = box
    (width, height), (frame_width, frame_height) = size, frame
    lines = [top - height, top, bottom, *(y for other in taken for y in (other[1] - height, other[3]))]
    spots = [(x, y) for y in sorted(lines, key=lambda y: abs(y - top + height)) for x in (left, right - width)]
    inside = [(min(max(0, x), frame_width - width), min(max(0, y), frame_height - height)) for x, y in spots]

    def covered(spot: tuple[int, int]) -> int:
        x, y = spot
        sides = ((min(x + width, b[2]) - max(x, b[0]), min(y + height, b[3]) - max(y, b[1])) for b in taken)
        return sum(max(0, across) * max(0, down) for across, down in sides)

    x, y = min(inside, key=covered)
    return x, y, x + width, y + height
