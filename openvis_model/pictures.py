"""Reads the pictures of a vocabulary: files in, pixels and masks out."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from openvis_model.bit_depth import eight_bit
from openvis_model.exemplars import Box, CheckedPicture, PictureContent, PictureExemplar
from openvis_model.vocabulary import Vocabulary

SIDE = 1024
"""Longer side to which larger pictures are reduced, pixels; masks are reduced with them."""

MAX_PIXELS = 100_000_000
"""Largest picture that is decoded."""

MAX_BYTES = 64_000_000
"""Largest file that is read."""


def read_pictures(vocabulary: Vocabulary, read: Callable[[str], bytes] | None = None) -> Vocabulary:
    """Returns a vocabulary whose pictures have been checked, one after the other; none stays in memory.

    Args:
        vocabulary: tracks are left as they are.
        read: returns the content of a file, also once more when the picture is embedded; may raise OSError. Local files
            by default.

    Raises:
        ValueError: a picture or mask is absent, too large or cannot be decoded, a box is not within its picture, a mask
            is empty or of another size, or the object is transparent; names the place, the exemplar and the remedy.
    """
    return vocabulary.with_exemplars(
        lambda each: read_picture(each, read or read_local) if isinstance(each, PictureExemplar) else each
    )


def read_picture(exemplar: PictureExemplar, read: Callable[[str], bytes]) -> PictureExemplar:
    """Returns a picture that has been checked; raises as `read_pictures`."""
    digest = _load(exemplar, read).digest
    return replace(exemplar, content=CheckedPicture(digest, partial(_load, exemplar, read, digest)))


def _load(exemplar: PictureExemplar, read: Callable[[str], bytes], digest: str | None = None) -> PictureContent:
    try:
        image = _content(exemplar.path, read)
        mask = None if exemplar.mask is None else _content(exemplar.mask, read)
        content = picture_content(image, box=exemplar.box, mask=mask)
        if digest not in (None, content.digest):
            raise ValueError("has changed since it was checked; start again")
    except ValueError as error:
        raise ValueError(f"{exemplar.place}: {exemplar}: {error}") from error
    return content


def picture_content(image: bytes, *, box: Box | None = None, mask: bytes | None = None) -> PictureContent:
    """Decodes a picture; one with a longer side above `SIDE` is reduced.

    What is transparent does not belong to the object, unless a mask says so, and its colour is white.

    Args:
        image: a JPEG, PNG or WebP file.
        box: of the object, pixels of the file.
        mask: an image file of the same size that is bright where the object is.

    Raises:
        ValueError: says what is wrong, and the remedy.
    """
    picture = _decode(image)
    digest = hashlib.sha256(image)
    coverage = alpha = _alpha(picture)
    if box is not None:
        digest.update(repr(box).encode())
        coverage = _filled(box, picture)
        coverage = coverage if alpha is None else ImageChops.multiply(coverage, alpha)
    elif mask is not None:
        digest.update(mask)
        coverage = _mask(mask, picture)
    if coverage is not None and coverage.getbbox() is None:
        raise ValueError("the object is transparent; give another picture or box")
    scale = min(1.0, SIDE / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    colours = eight_bit(picture).convert("RGB")
    if alpha is not None:
        colours = Image.composite(colours, Image.new("RGB", picture.size, "white"), alpha)
    pixels = colours.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    shares = None if coverage is None else np.asarray(coverage.resize(size, Image.Resampling.BOX), np.uint8)
    return PictureContent(np.asarray(pixels, np.uint8), shares, digest.hexdigest())


def read_local(path: str) -> bytes:
    """Returns the content of a local file."""
    with Path(path).open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _content(path: str, read: Callable[[str], bytes]) -> bytes:
    try:
        content = read(path)
    except OSError as error:
        raise ValueError(f"cannot read {path} ({error.strerror}); correct the path") from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES / 1e6:.0f} MB; reduce it")
    return content


def _decode(image: bytes) -> Image.Image:
    """Returns an upright image."""
    try:
        with Image.open(io.BytesIO(image), formats=("JPEG", "PNG", "WEBP")) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ValueError(
                    f"is {opened.width} x {opened.height} pixels, more than {MAX_PIXELS / 1e6:.0f} million; reduce it"
                )
            opened.load()
            return ImageOps.exif_transpose(opened)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("is not a readable picture; give a JPEG, PNG or WebP") from error


def _alpha(image: Image.Image) -> Image.Image | None:
    """Returns how opaque each pixel is, of 255; None if all are."""
    image = eight_bit(image)
    if not image.has_transparency_data:
        return None
    alpha = image.convert("RGBA").getchannel("A")
    return None if ImageChops.invert(alpha).getbbox() is None else alpha


def _filled(box: Box, picture: Image.Image) -> Image.Image:
    left, top, width, height = box
    if not (width and height and left + width <= picture.width and top + height <= picture.height):
        raise ValueError(
            f"the box is not within the picture, which is {picture.width} x {picture.height} pixels; "
            "write left, top, width and height in pixels"
        )
    filled = Image.new("L", picture.size)
    filled.paste(255, (left, top, left + width, top + height))
    return filled


def _mask(mask: bytes, picture: Image.Image) -> Image.Image:
    try:
        grey = _decode(mask)
        values = _brightness(grey)
    except ValueError as error:
        raise ValueError(f"the mask {error}") from error
    if grey.size != picture.size:
        raise ValueError(
            f"the mask is {grey.width} x {grey.height} pixels, the picture {picture.width} x {picture.height}; "
            "give one of the same size"
        )
    brightest = values.max()
    if not brightest:
        raise ValueError("the mask is empty; make the object white and all else black")
    return Image.fromarray(np.where(2 * values > brightest, 255, 0).astype(np.uint8))


def _brightness(mask: Image.Image) -> Int64[np.ndarray, "H W"]:
    """Returns how bright each pixel of a mask is; of one colour, with transparency, how opaque."""
    if mask.mode.startswith("I;16"):
        return np.asarray(mask, np.int64)
    values, alpha = np.asarray(eight_bit(mask).convert("L"), np.int64), _alpha(mask)
    if alpha is None:
        return values
    opacity = np.asarray(alpha, np.int64)
    return opacity if np.unique(values[opacity > 0]).size < 2 else values * opacity
