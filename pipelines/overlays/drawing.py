"""Draws objects on a frame: translucent masks, crisp contours, readable labels."""

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

_Box = tuple[int, int, int, int]  # left, top, right, bottom, pixels; right and bottom are exclusive


@dataclass(frozen=True, kw_only=True)
class DrawnObject:
    """An object in one frame.

    Attributes:
        track_id: its track, which determines the colour.
        name: the name to show.
        score: score of the track, 0 to 1.
        mask: its pixels.
    """

    track_id: int
    name: str
    score: float
    mask: Bool[np.ndarray, "H W"]


def track_colour(track_id: int) -> tuple[int, int, int]:
    """Returns the RGB of a track; golden-ratio steps of hue keep consecutive ids far apart."""
    saturation, value = ((0.80, 1.0), (0.55, 1.0), (0.85, 0.8))[track_id % 3]
    red, green, blue = colorsys.hsv_to_rgb(track_id * 0.6180339887498949 % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(frame: UInt8[np.ndarray, "H W 3"], objects: Sequence[DrawnObject]) -> UInt8[np.ndarray, "H W 3"]:
    """Draws objects on a copy of the frame: smaller ones over larger ones, labels on top.

    Pixels outside of masks and labels stay unchanged. An object with an empty mask is skipped.

    Raises:
        ValueError: if a mask differs in size from the frame.
    """
    _check_masks(frame, objects)
    canvas = Image.fromarray(frame)
    visible = sorted((drawn for drawn in objects if drawn.mask.any()), key=lambda drawn: -int(drawn.mask.sum()))
    boxes = {drawn.track_id: _paint(canvas, drawn) for drawn in visible}
    taken: list[_Box] = []
    for drawn in sorted(visible, key=lambda drawn: drawn.track_id):
        taken.append(_write(canvas, drawn, boxes[drawn.track_id], taken))
    return np.array(canvas)


def draw_scaled(
    frame: UInt8[np.ndarray, "H W 3"], objects: Sequence[DrawnObject], size: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """Resizes the frame to `size` (height, width), pixels, and draws at that size, so lines and labels stay crisp.

    Raises:
        ValueError: if a mask differs in size from the frame.
    """
    if frame.shape[:2] == size:
        return draw(frame, objects)
    _check_masks(frame, objects)

    def resize(image: np.ndarray) -> Image.Image:
        return Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)

    blur = ImageFilter.GaussianBlur(max(0.0, 0.7 * (size[0] / frame.shape[0] - 1)))  # hides enlarged pixels
    masks = [np.asarray(resize(drawn.mask.astype(np.uint8) * np.uint8(255)).filter(blur)) > 127 for drawn in objects]
    resized = [replace(drawn, mask=mask) for drawn, mask in zip(objects, masks, strict=True)]
    return draw(np.asarray(resize(frame)), resized)


@cache
def label_font(size: int) -> ImageFont.FreeTypeFont:
    """Returns Pillow's built-in font, which is ASCII only, at a size in pixels."""
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))


def shorten(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """Shortens a text to at most `room` pixels; marks a cut with an ellipsis."""
    shorter = (text[:end].rstrip() + "…" * (end < len(text)) for end in range(len(text), 0, -1))
    return next((candidate for candidate in shorter if font.getlength(candidate) <= room), "")


def _check_masks(frame: UInt8[np.ndarray, "H W 3"], objects: Sequence[DrawnObject]) -> None:
    for drawn in objects:
        if drawn.mask.shape != frame.shape[:2]:
            raise ValueError(
                f"mask of track {drawn.track_id}: expected {frame.shape[:2]} pixels, got {drawn.mask.shape}; "
                "is this the video that was labelled?"
            )


def _paint(canvas: Image.Image, drawn: DrawnObject) -> _Box:
    """Paints a mask and, inside it, its contour, except along the frame's edge; returns the mask's bounding box."""
    rows, columns = (np.flatnonzero(drawn.mask.any(axis)) for axis in (1, 0))
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    height, width = drawn.mask.shape
    line = max(2, round(height / 400))
    left, top = max(0, box[0] - line), max(0, box[1] - line)
    mask = drawn.mask[top : min(height, box[3] + line), left : min(width, box[2] + line)]
    core = np.pad(mask, line, mode="edge")
    for _ in range(line):
        inner = core[1:-1, 1:-1]
        core = inner & core[:-2, 1:-1] & core[2:, 1:-1] & core[1:-1, :-2] & core[1:-1, 2:]
    opacity = np.where(core, np.uint8(255 * _FILL), np.uint8(255)) * mask
    canvas.paste(track_colour(drawn.track_id), (left, top), Image.fromarray(opacity))
    return box


def _write(canvas: Image.Image, drawn: DrawnObject, box: _Box, taken: Sequence[_Box]) -> _Box:
    """Writes the label of an object with this bounding box, away from `taken` if possible; returns the label's box."""
    font = label_font(max(13, round(canvas.height / 40)))
    ascent, descent = font.getmetrics()
    pad = max(3, ascent // 4)
    plain = unicodedata.normalize("NFKD", drawn.name).encode("ascii", "ignore").decode()  # the font is ASCII only
    score = f"{drawn.score:.2f}"
    name = shorten(plain or drawn.name, font, canvas.width - 2 * pad - font.getlength(f"{drawn.track_id}  {score}"))
    text = " ".join(word for word in (str(drawn.track_id), name, score) if word)
    size = min(canvas.width, round(font.getlength(text)) + 2 * pad), ascent + descent + pad
    spot = _place(box, size, canvas.size, taken)
    colour, pen = track_colour(drawn.track_id), ImageDraw.Draw(canvas)
    pen.rectangle((spot[0], spot[1], spot[2] - 1, spot[3] - 1), colour)
    luminance = np.dot((0.299, 0.587, 0.114), colour)
    pen.text((spot[0] + pad, (spot[1] + spot[3]) / 2), text, "black" if luminance > 120 else "white", font, "lm")
    return spot


def _place(box: _Box, size: tuple[int, int], frame: tuple[int, int], taken: Sequence[_Box]) -> _Box:
    """Returns where a label of this size covers least of the boxes in `taken`; among equals, nearest to its object."""
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
