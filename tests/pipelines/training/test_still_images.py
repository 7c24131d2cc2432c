from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.training.still_images import image_size, read_image
from pipelines.video.plan import VideoError
from tests.pipelines.video.clips import cut_off, picture


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_an_image_and_its_size(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(picture(5, 96, 128)).save(path, quality=95)
    assert image_size(str(path)) == (96, 128)
    assert np.abs(read_image(str(path)).astype(int) - picture(5, 96, 128)).mean() < 4


def test_grey_images_get_three_channels(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 6), 77, np.uint8)).save(tmp_path / "a.png")
    assert np.array_equal(read_image(str(tmp_path / "a.png")), np.full((4, 6, 3), 77))


def test_sixteen_bits_are_not_cut_off(tmp_path: Path) -> None:
    Image.fromarray((np.arange(24).reshape(4, 6) * 2048).astype(np.uint16)).save(tmp_path / "a.png")
    assert np.array_equal(read_image(str(tmp_path / "a.png"))[..., 1], np.arange(24).reshape(4, 6) * 8)


def test_images_that_lie_on_their_side_are_turned(tmp_path: Path) -> None:
    image = Image.fromarray(picture(0, 96, 128))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned clockwise
    image.save(tmp_path / "a.png", exif=exif)
    assert image_size(str(tmp_path / "a.png")) == (128, 96)
    assert np.array_equal(read_image(str(tmp_path / "a.png")), np.rot90(picture(0, 96, 128), -1))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(picture(5, 96, 128)).save(tmp_path / f"whole{suffix}")
    path = str(cut_off(tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}", 0.6))
    with pytest.raises(VideoError, match=f"cut{suffix} is not an image that can be read"):
        read_image(path)


def test_no_file_and_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    for read in (image_size, read_image):
        with pytest.raises(VideoError, match="a.png is not an image that can be read"):
            read(str(tmp_path / "a.png"))
        with pytest.raises(VideoError, match="b.png is not there"):
            read(str(tmp_path / "b.png"))
