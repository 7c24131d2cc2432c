import io

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from pipelines.video.orientation import Orientation

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)


@pytest.mark.parametrize("tag", [None, 1, 2, 3, 4, 5, 6, 7, 8, 99])
def test_images_are_shown_as_pillow_shows_them(tag: int | None) -> None:
    image, file = PIL.Image.fromarray(PIXELS), io.BytesIO()
    exif = PIL.Image.Exif()
    if tag is not None:
        exif[0x0112] = tag
    image.save(file, "PNG", exif=exif)
    file.seek(0)
    orientation = Orientation.of_image(file)
    expected = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(file)))
    assert np.array_equal(orientation.apply(PIXELS), expected)
    assert orientation.shown(16, 24) == expected.shape[:2]


def test_a_damaged_image_counts_as_upright() -> None:
    assert Orientation.of_image(io.BytesIO(b"junk")) == Orientation()


@pytest.mark.parametrize("matrix", [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, -1, 0), (0, -1, -1, 0)])
def test_a_stored_pixel_is_shown_where_the_matrix_says(matrix: tuple[int, int, int, int]) -> None:
    a, b, c, d = matrix
    shown = Orientation.of_matrix(*matrix).apply(PIXELS)
    height, width = PIXELS.shape[:2]
    for y, x in ((0, 0), (3, 20), (15, 23)):
        right, down = a * x + c * y, b * x + d * y
        right += (width - 1) * (a < 0) + (height - 1) * (c < 0)
        down += (width - 1) * (b < 0) + (height - 1) * (d < 0)
        assert np.array_equal(shown[down, right], PIXELS[y, x])


def test_angles_count_as_the_nearest_right_one() -> None:
    assert Orientation.of_matrix(0.9, 0.1, -0.1, 0.9) == Orientation()
    assert Orientation.of_matrix(0.1, 0.9, -0.9, 0.1) == Orientation(True, True, False)
