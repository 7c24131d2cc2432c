from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.overlays.contact_sheet import Tile, contact_sheet


def test_contact_sheet_is_a_grid(tmp_path: Path) -> None:
    wide = [Tile(image=np.full((270, 480, 3), 200, np.uint8), video="a.mp4", time_s=75.25)] * 3
    tall = [Tile(image=np.full((480, 270, 3), 100, np.uint8), video="b" * 300, time_s=0.0)] * 2
    contact_sheet(wide + tall, tmp_path / "sheet.png", columns=3)
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    # Gaps of 12 around tiles and captions of 30; a column is as wide as the widest tile, a row as high as its highest.
    assert pixels.shape == (12 + 270 + 30 + 12 + 480 + 30 + 12, 12 + 3 * (480 + 12), 3)
    for column in range(3):
        left = 12 + 492 * column
        assert (pixels[12:282, left : left + 480] == 200).all()
        caption = pixels[282:312, left : left + 480]
        assert (caption[:, :240].max(), caption[:, 240:].max()) > (150, 120)
    assert (pixels[324:804, 12:282] == 100).all()
    assert (pixels[804:834, 282:504] == pixels[0, 0]).all()  # the long name is cut to the tile
    contact_sheet(wide[:1], tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as sheet:
        assert sheet.size == (504, 324)


def test_contact_sheet_refuses(tmp_path: Path) -> None:
    tile = Tile(image=grey(27, 48), video="a.mp4", time_s=0.0)
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 4"):
        contact_sheet([], tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"^sheet: .*/x.jpg must end with .png"):
        contact_sheet([tile], tmp_path / "x.jpg")
    assert not list(tmp_path.iterdir())


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)
