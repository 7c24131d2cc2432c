"""Turns frames upright: rotation and mirroring from the display matrix of a video, or the EXIF tag of an image."""

import struct
from dataclasses import dataclass
from io import BytesIO

import av
import numpy as np
import PIL.ExifTags
import PIL.Image
from jaxtyping import UInt8

# Each is (transposed, reversed_x, reversed_y).
_EXIF = {
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
_TURNED = (False, False, False), _EXIF[8], _EXIF[3], _EXIF[6]  # by as many right angles counter-clockwise


@dataclass(frozen=True)
class Orientation:
    """How stored pixels are shown: first rows and columns change places, or not, then either axis is reversed."""

    transposed: bool = False
    reversed_x: bool = False
    reversed_y: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> "Orientation":
        """Reads the orientation of a frame."""
        try:
            matrix = frame.side_data.get("DISPLAYMATRIX")
        except ValueError:  # PyAV knows no EXIF data, as in the JPEG images of some cameras' videos
            return cls(*_TURNED[round(frame.rotation / 90) % 4])
        if matrix is None:
            return cls()
        a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))  # type: ignore[call-overload] # a buffer
        return cls.of_matrix(a, b, c, d)

    @classmethod
    def of_matrix(cls, a: float, b: float, c: float, d: float) -> "Orientation":
        """Takes FFmpeg's display matrix: a stored pixel (x, y) is shown at (a x + c y, b x + d y).

        Angles between right angles count as the nearest one.
        """
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, c < 0, b < 0)
        return cls(False, a < 0, d < 0)

    @classmethod
    def of_image(cls, file: BytesIO) -> "Orientation":
        """Reads the orientation of an image file; one that is damaged counts as upright."""
        try:
            tag = PIL.Image.open(file).getexif().get(PIL.ExifTags.Base.Orientation, 1)
        except Exception:  # of Pillow's many; whether the pixels can be read is for FFmpeg to say
            return cls()
        return cls(*_EXIF.get(tag, ()))

    def shown(self, height: int, width: int) -> tuple[int, int]:
        """Returns the height and width of what is shown, given those of the stored pixels, or the other way round."""
        return (width, height) if self.transposed else (height, width)

    def apply(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """Returns stored pixels as they are shown."""
        if self.transposed:
            pixels = pixels.transpose(1, 0, 2)
        pixels = pixels[:: -1 if self.reversed_y else 1, :: -1 if self.reversed_x else 1]
        return np.ascontiguousarray(pixels)
