"""Recognises files that end before their container says so, from the sizes that containers state of their parts."""

import os
from pathlib import Path
from typing import BinaryIO

_SEGMENT = b"\x18\x53\x80\x67"  # of Matroska
_TS_PACKETS = {188: 0, 192: 4, 204: 0}  # length: place of the first byte, of MPEG-TS
_FLV_KINDS = (8, 9, 18)  # sound, picture, data


def is_cut_off(path: str | Path, container: str) -> bool:
    """Checks whether a file is shorter than its container says.

    Many files do not say: a live WebM, or a stream that ends between two of its parts, counts as whole.

    Args:
        path: the file.
        container: FFmpeg's name of its format.
    """
    check = next((check for name, check in _CHECKS.items() if name in container.split(",")), None)
    if check is None:
        return False
    with open(path, "rb") as file:
        return check(file, os.fstat(file.fileno()).st_size)


def _mp4(file: BinaryIO, size: int) -> bool:
    """Walks the boxes; the last one may extend to the end."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        header = file.read(16)
        length = int.from_bytes(header[:4])
        if length == 1:
            length = int.from_bytes(header[8:16])
        if length < 8:  # to the end, or damaged
            return False
        at += length
    return at > size


def _matroska(file: BinaryIO, size: int) -> bool:
    at = 0
    for _ in range(2):  # the header, then the segment
        file.seek(at)
        head = file.read(12)
        if len(head) < 12 or not (head[0] and head[id_bytes := 9 - head[0].bit_length()]):
            return False
        size_bytes = 9 - head[id_bytes].bit_length()
        start = id_bytes + size_bytes
        length = int.from_bytes(head[id_bytes:start]) & ((1 << 7 * size_bytes) - 1)
        if head[:id_bytes] == _SEGMENT:
            unknown = length == (1 << 7 * size_bytes) - 1
            return not unknown and at + start + length > size
        at += start + length
    return False


def _avi(file: BinaryIO, size: int) -> bool:
    header = file.read(8)
    return header[:4] == b"RIFF" and int.from_bytes(header[4:8], "little") + 8 > size


def _ts(file: BinaryIO, size: int) -> bool:
    """Packets of a fixed length begin with 0x47, after a time of 4 bytes in the packets of cameras and Blu-ray."""
    head = file.read(3 * max(_TS_PACKETS))
    for length, start in _TS_PACKETS.items():
        if head[start : 3 * length : length] == b"\x47" * 3:
            return size % length != 0
    return False


def _flv(file: BinaryIO, size: int) -> bool:
    """Walks the tags; after each, its size is stated once more."""
    header = file.read(9)
    at = int.from_bytes(header[5:9]) + 4
    if header[:3] != b"FLV" or at < 13:
        return False
    while at < size:
        file.seek(at)
        tag = file.read(4)
        if tag[0] & 0x1F not in _FLV_KINDS:  # damaged, or something else follows
            return False
        at += 11 + int.from_bytes(tag[1:]) + 4
    return at > size


_CHECKS = {"mp4": _mp4, "matroska": _matroska, "avi": _avi, "mpegts": _ts, "flv": _flv}
