"""Reads the pictures of a vocabulary: files in, pixels and masks out."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from openvis_model.bit_depth import eight_bit
from openvis_model.exemplars import Box, PictureContent, PictureExemplar
from openvis_model.vocabulary import Vocabulary

SIDE = 1024
"""Longer side to which larger pictures are reduced, pixels; masks are reduced with them."""

MAX_PIXELS = 100_000_000
"""Largest picture that is decoded."""

MAX_BYTES = 64_000_000
"""Largest file that is read."""


def read_pictures(vocabulary: Vocabulary, read: Callable[[str], bytes] | None = None) -> Vocabulary:
    """Returns a vocabulary whose pictures have been read.

    Args:
        vocabulary: tracks are left as they are.
        read: returns the content of a file; may raise OSError. Local files by default.

    Raises:
        ValueError: a picture or mask is absent, too large or cannot be decoded, a box is not within its picture, or a
            mask is empty or of another size; names the place, the exemplar and the remedy.
    """
    return vocabulary.with_exemplars(
        lambda each: read_picture(each, read or read_local) if isinstance(each, PictureExemplar) else each
    )


def read_picture(exemplar: PictureExemplar, read: Callable[[str], bytes]) -> PictureExemplar:
    """Returns a picture that has been read; raises as `read_pictures`."""
    try:
        image = _content(exemplar.path, read)
        mask = exemplar.mask and _content(exemplar.mask, read)
        content = picture_content(image, box=exemplar.box, mask=mask or None)
    except ValueError as error:
        raise ValueError(f"{exemplar.place}: {exemplar}: {error}") from error
    return replace(exemplar, content=content)


def picture_content(image: bytes, *, box: Box | None = None, mask: bytes | None = None) -> PictureContent:
    """Decodes a picture; one with a longer side above `SIDE` is reduced.

    Args:
        image: a JPEG, PNG or WebP file.
        box: of the object, pixels of the file.
        mask: an image file of the same size that is bright where the object is.

    Raises:
        ValueError: says what is wrong, and the remedy.
    """
    picture = _decode(image)
    digest = hashlib.sha256(image)
    coverage = None
    if box is not None:
        digest.update(repr(box).encode())
        coverage = _filled(box, picture)
    elif mask is not None:
        digest.update(mask)
        coverage = _mask(mask, picture)
    scale = min(1.0, SIDE / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    pixels = eight_bit(picture).convert("RGB").resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return PictureContent(
        np.asarray(pixels, np.uint8), None if coverage is None else _reduced(coverage, size), digest.hexdigest()
    )


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
        values = np.asarray(grey if grey.mode.startswith("I;16") else eight_bit(grey).convert("L"), np.int64)
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


def _reduced(mask: Image.Image, size: tuple[int, int]) -> Float32[np.ndarray, "H W"]:
    shares: UInt8[np.ndarray, "H W"] = np.asarray(mask.resize(size, Image.Resampling.BOX), np.uint8)
    return shares.astype(np.float32) / 255
