"""Interlaced H.264 whose fields are coded as pictures of their own, which x264 does not make."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

_I_PCM = 25  # a macroblock of plain samples
_IDR, _OTHER, _SEQUENCE, _PICTURE = 0x65, 0x61, 0x67, 0x68  # kinds of units


class _Unit:
    """Bits of a unit; the names of the methods are those of the standard (ITU-T H.264, 7.2)."""

    def __init__(self) -> None:
        self.bits: list[str] = []

    def u(self, width: int, *values: int) -> None:
        self.bits += [f"{value:0{width}b}" for value in values]

    def ue(self, *values: int) -> None:
        for value in values:
            code = f"{value + 1:b}"
            self.bits.append("0" * (len(code) - 1) + code)

    def align(self) -> None:
        self.bits.append("0" * (-len("".join(self.bits)) % 8))

    def coded(self, kind: int) -> bytes:
        self.u(1, 1)
        self.align()
        text = "".join(self.bits)
        coded, zeros = bytearray(b"\0\0\0\1" + bytes([kind])), 0
        for byte in int(text, 2).to_bytes(len(text) // 8):
            if zeros >= 2 and byte <= 3:
                coded.append(3)
                zeros = 0
            coded.append(byte)
            zeros = zeros + 1 if byte == 0 else 0
        return bytes(coded)


def write_fields(path: Path, frames: list[UInt8[np.ndarray, "h w 3"]], rate: int = 25) -> Path:
    """Writes frames, of multiples of 32 pixels, as two fields each, with a packet and a time for every field."""
    height, width, _ = frames[0].shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number, frame in enumerate(frames):
            for bottom in (0, 1):
                parameters = _parameters(height, width) if not number + bottom else b""
                packet = av.Packet(parameters + _field(number, bottom, frame))
                packet.stream, packet.time_base = stream, Fraction(1, 2 * rate)
                packet.pts = packet.dts = 2 * number + bottom
                packet.is_keyframe = not number + bottom
                container.mux(packet)
    return path


def _parameters(height: int, width: int) -> bytes:
    sequence, picture = _Unit(), _Unit()
    sequence.u(8, 77, 0, 30)  # main profile
    sequence.ue(0, 0, 0, 0, 2)  # 4 bits for numbers of frames and for their order, two references
    sequence.u(1, 0)
    sequence.ue(width // 16 - 1, height // 32 - 1)
    sequence.u(1, 0, 0, 1, 0, 0)  # there are fields; neither cropping nor more to say
    picture.ue(0, 0)
    picture.u(1, 0, 0)
    picture.ue(0, 0, 0)
    picture.u(1, 0, 0, 0)
    picture.ue(0, 0, 0)
    picture.u(1, 1, 0, 0)
    return sequence.coded(_SEQUENCE) + picture.coded(_PICTURE)


def _field(number: int, bottom: int, frame: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Codes every other line of a frame as an intra picture."""
    first = not number + bottom
    unit = _Unit()
    unit.ue(0, 7, 0)
    unit.u(4, number % 16)
    unit.u(1, 1, bottom)
    if first:
        unit.ue(0)
    unit.u(4, (2 * number + bottom) % 16)
    unit.u(1, *((0, 0) if first else (0,)))
    unit.ue(0, 1)
    height, width, _ = frame.shape
    lines = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[bottom::2]), format="rgb24")
    samples = lines.reformat(format="yuv420p").to_ndarray().clip(1, 255)
    field = height // 2
    luma, chroma = samples[:field], samples[field:].reshape(2, field // 2, width // 2)
    for y in range(0, field, 16):
        for x in range(0, width, 16):
            unit.ue(_I_PCM)
            unit.align()
            unit.u(8, *luma[y : y + 16, x : x + 16].ravel().tolist())
            unit.u(8, *chroma[:, y // 2 : y // 2 + 8, x // 2 : x // 2 + 8].ravel().tolist())
    return unit.coded(_IDR if first else _OTHER)
