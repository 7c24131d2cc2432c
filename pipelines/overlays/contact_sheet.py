"""Writes contact sheets: pictures in a grid, with captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from pipelines.overlays.drawing import label_font, shorten
from pipelines.storage.files import written_whole

_SHEET, _INK, _FAINT = (22, 24, 28), (226, 228, 232), (150, 154, 162)  # background, names, times


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A picture of a contact sheet.

    Attributes:
        image: an overlay.
        video: name of its video.
        time_s: seconds from the start of the video.
    """

    image: UInt8[np.ndarray, "H W 3"]
    video: str
    time_s: float


def contact_sheet(tiles: Sequence[Tile], output: str | Path, *, columns: int = 4) -> None:
    """Writes a PNG with the tiles row by row, each above the name of its video and its time.

    Args:
        tiles: pictures of one or several videos.
        output: a .png file, local or in the cloud; its folder is created if missing.
        columns: tiles per row; with the number of tiles per video, every video has its own row.

    Raises:
        ValueError: if there are no tiles or columns, or `output` does not end with .png or cannot be written.
    """
    if not tiles or columns < 1:
        raise ValueError(f"tiles and columns: must be at least 1, got {len(tiles)} and {columns}")
    gap, font = 12, label_font(15)
    caption, columns = 30, min(columns, len(tiles))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    width = max(tile.image.shape[1] for tile in tiles)
    heights = [max(tile.image.shape[0] for tile in row) + caption + gap for row in rows]
    sheet = Image.new("RGB", (columns * (width + gap) + gap, sum(heights) + gap), _SHEET)
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        for column, tile in enumerate(row):
            left, top = gap + column * (width + gap), gap + sum(heights[:number])
            sheet.paste(Image.fromarray(tile.image), (left, top))
            middle, right = top + tile.image.shape[0] + caption // 2, left + tile.image.shape[1]
            time = f"{int(tile.time_s // 60)}:{tile.time_s % 60:04.1f}"
            name = shorten(tile.video, font, right - left - font.getlength(time) - gap)
            pen.text((left, middle), name, _INK, font, "lm")
            pen.text((right, middle), time, _FAINT, font, "rm")
    with written_whole("sheet", str(output), ".png") as path:
        sheet.save(path, "PNG")
