import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from openvis_model import pictures
from openvis_model.exemplars import Box, CheckedPicture, PictureContent
from openvis_model.pictures import picture_content, read_pictures
from openvis_model.vocabulary import Vocabulary


def file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_pixels_and_boxes_are_those_of_the_file() -> None:
    image = noise(6, 8)
    content = picture_content(file(image), box=(2, 1, 3, 4))
    assert np.array_equal(content.pixels, np.asarray(image))
    assert content.coverage is not None
    assert np.argwhere(content.coverage)[[0, -1]].tolist() == [[1, 2], [4, 4]]
    assert (content.coverage.sum(), content.coverage.max()) == (12 * 255, 255)
    assert picture_content(file(image)).coverage is None


@pytest.mark.parametrize("values", [(0, 255), (0, 1), (10, 200)])
def test_masks_are_what_is_bright(values: tuple[int, int]) -> None:
    expected = np.zeros((6, 8), bool)
    expected[1:3, 2:5] = True
    mask = Image.fromarray(np.where(expected, values[1], values[0]).astype(np.uint8))
    content = picture_content(file(noise(6, 8)), mask=file(mask))
    assert np.array_equal(content.coverage, 255 * expected)


def test_sixteen_bits_are_not_cut_off() -> None:
    expected = np.zeros((6, 8), bool)
    expected[1:3, 2:5] = True
    mask = Image.fromarray(np.where(expected, 60_000, 1_000).astype(np.uint16))
    grey = Image.fromarray((np.arange(48).reshape(6, 8) * 1024).astype(np.uint16))
    content = picture_content(file(grey), mask=file(mask))
    assert np.array_equal(content.coverage, 255 * expected)
    assert np.array_equal(content.pixels[..., 0], np.arange(48).reshape(6, 8) * 4)


def test_masks_of_segmentation_data_sets_have_palettes() -> None:
    mask = Image.fromarray(np.eye(6, dtype=np.uint8), "P")
    mask.putpalette([0, 0, 0, 128, 0, 0])
    content = picture_content(file(noise(6, 6)), mask=file(mask))
    assert np.array_equal(content.coverage, 255 * np.eye(6))


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_not_the_object(kind: str) -> None:
    """Whatever colour it has in the file."""

    def content(hidden: int, box: Box | None = None) -> PictureContent:
        pixels = np.full((6, 8, 4), (hidden, hidden, hidden, 0), np.uint8)
        pixels[1:3, 2:5] = (90, 90, 90, 255)
        image = Image.fromarray(pixels)
        if kind == "P":
            image = Image.fromarray((pixels[..., 3] > 0).astype(np.uint8), "P")
            image.putpalette([hidden] * 3 + [90] * 3)
            return picture_content(file(image, transparency=0), box=box)
        return picture_content(file(image.convert(kind)), box=box)

    one, other = content(0), content(200)
    expected = np.zeros((6, 8), bool)
    expected[1:3, 2:5] = True
    assert np.array_equal(one.coverage, 255 * expected)
    assert np.array_equal(one.pixels, other.pixels)
    expected[:, 3:] = False
    assert np.array_equal(content(0, box=(0, 0, 3, 6)).coverage, 255 * expected)
    with pytest.raises(ValueError, match="^the object is transparent; give another picture or box"):
        content(0, box=(5, 0, 3, 6))


def test_a_picture_whose_alpha_is_opaque_is_all_of_it() -> None:
    assert picture_content(file(noise(6, 8).convert("RGBA"))).coverage is None


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_the_object_of_a_mask_may_be_in_its_alpha(colour: int) -> None:
    expected = np.zeros((6, 8), bool)
    expected[1:3, 2:5] = True
    for hidden in (colour, 255 - colour):
        grey = np.where(expected, colour, hidden)
        mask = Image.fromarray(np.stack([grey, 255 * expected], -1).astype(np.uint8))
        assert np.array_equal(picture_content(file(noise(6, 8)), mask=file(mask)).coverage, 255 * expected)


def test_what_is_bright_in_a_mask_but_transparent_is_not_the_object() -> None:
    values = np.zeros((6, 8, 2), np.uint8)
    values[..., 1] = 255
    values[1:3, 2:5, 0] = 255
    values[5, :] = (255, 0)
    content = picture_content(file(noise(6, 8)), mask=file(Image.fromarray(values)))
    assert np.array_equal(content.coverage, np.where(values[..., 1] > 0, values[..., 0], 0))


def test_large_pictures_are_reduced_with_their_masks() -> None:
    content = picture_content(file(Image.new("RGB", (4096, 1024), "red")), box=(0, 0, 1026, 1024))
    assert content.pixels.shape == (256, 1024, 3)
    assert content.coverage is not None
    assert content.coverage[0, 255:258].tolist() == pytest.approx([255, 128, 0], abs=2)


def test_photographs_are_turned_upright() -> None:
    """As the camera's orientation says; a box is in the upright picture."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = picture_content(file(noise(6, 8), "JPEG", exif=exif), box=(0, 7, 6, 1))
    assert content.pixels.shape == (8, 6, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box": (6, 0, 3, 2)}, "the box is not within the picture, which is 8 x 6 pixels; write left, top"),
        ({"box": (0, 5, 1, 2)}, "the box is not within"),
        ({"box": (1, 1, 0, 2)}, "the box is not within"),
        ({"mask": file(Image.new("L", (8, 6)))}, "the mask is empty; make the object white"),
        (
            {"mask": file(Image.new("L", (6, 8), 255))},
            "the mask is 6 x 8 pixels, the picture 8 x 6; give one of the same",
        ),
        (
            {"mask": file(Image.new("LA", (8, 6), (255, 0)))},
            "the mask is empty; make the object white",
        ),
        ({"mask": b""}, "the mask is not a readable picture; give a JPEG, PNG or WebP"),
        ({"mask": b"no"}, "the mask is not a readable picture; give a JPEG, PNG or WebP"),
    ],
    ids=range(8),
)
def test_what_is_wrong_is_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        picture_content(file(noise(6, 8)), **options)


def test_what_is_no_picture_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (b"", b"<svg/>", file(noise(60, 80))[:-2000], file(noise(6, 8), "BMP")):
        with pytest.raises(ValueError, match="^is not a readable picture"):
            picture_content(content)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 40)
    with pytest.raises(ValueError, match="^is 8 x 6 pixels, more than .* million; reduce it"):
        picture_content(file(noise(6, 8)))


def test_pictures_of_a_vocabulary_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cup.png").write_bytes(file(noise(6, 8)))
    names = tmp_path / "names.txt"
    names.write_text("dog\n\nmug: cup.png, cup.png box 0 0 2 2, track: v/1\n")
    unread = Vocabulary.read(names)
    read = read_pictures(unread)
    assert [each.content is not None for each in read.exemplars[1][:2]] == [True, True]
    assert read == unread
    assert read.exemplars[1][0].digest != read.exemplars[1][1].digest

    names.write_text("mug: cup.png mask none.png\n")
    (tmp_path / "none.png").write_bytes(b"")
    with pytest.raises(ValueError, match="line 1: .*none.png: the mask is not a readable picture"):
        read_pictures(Vocabulary.read(names))
    names.write_text("dog\nmug: cup.png box 0 0 9 2\n")
    with pytest.raises(ValueError, match=f"^{names}: line 2: {tmp_path}/cup.png box 0 0 9 2: the box is not within"):
        read_pictures(Vocabulary.read(names))
    names.write_text("mug: absent.png\n")
    with pytest.raises(ValueError, match=r"line 1: .*absent.png: cannot read .*absent.png \(No such file.*\); correct"):
        read_pictures(Vocabulary.read(names))
    monkeypatch.setattr(pictures, "MAX_BYTES", 100)
    names.write_text("mug: cup.png\n")
    with pytest.raises(ValueError, match=r"line 1: .*cup.png is larger than 0 MB; reduce it"):
        read_pictures(Vocabulary.read(names))


def test_pixels_are_read_when_they_are_needed() -> None:
    files = {"a.png": file(noise(6, 8)), "b.png": file(noise(8, 6))}
    unread = Vocabulary.from_lines(["mug: a.png, b.png"])
    one, other = (each.content for each in read_pictures(unread, lambda path: files[path]).shown)
    assert isinstance(one, CheckedPicture)
    assert isinstance(other, CheckedPicture)
    content = one.load()
    assert content.digest == one.digest
    assert content.pixels is not one.load().pixels
    files["b.png"] = files["a.png"]
    with pytest.raises(ValueError, match="^line 1: b.png: has changed since it was checked; start again"):
        other.load()
