"""Files that pretend to be videos, or are broken ones."""

import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.pipelines.video.clips import H264, cut_off, damage, write_audio, write_clip, write_image, write_images


def write_hostile(folder: Path, name: str) -> None:
    """Writes one of `HOSTILE` into a folder."""
    HOSTILE[name][0](folder / name)


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _clip(path: Path) -> Path:
    """A good clip beside the file, to be made bad."""
    source = path.with_name(f".good-{path.name}")
    return write_clip(source, options=H264)


def _cut(share: float) -> Callable[[Path], object]:
    return lambda path: cut_off(_clip(path), path, share)


def _damaged(path: Path) -> None:
    damage(_clip(path), path, 0.3, 2000)


def _patched(box: bytes, offset: int, value: int) -> Callable[[Path], object]:
    """A clip with a number in one of its boxes replaced, at an offset from the box's name."""

    def write(path: Path) -> None:
        data = bytearray(_clip(path).read_bytes())
        struct.pack_into(">I", data, data.index(box) + 4 + offset, value)
        path.write_bytes(data)

    return write


def _archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10**7))


def _png(width: int, height: int) -> bytes:
    """Its header alone promises more memory than there is."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _huge_images(path: Path) -> None:
    path.mkdir()
    (path / "frame_0.png").write_bytes(_png(100_000, 100_000))


def _junk_images(path: Path) -> None:
    path.mkdir()
    (path / "frame_0.jpg").write_bytes(b"no image")


def _half_images(path: Path) -> None:
    write_images(path, 8)
    (path / "frame_4.png").write_bytes(_png(128, 96)[:40])


def _other_sizes(path: Path) -> None:
    write_images(path, 8)
    write_image(path / "frame_4.png", np.zeros((48, 64, 3), np.uint8))


def _huge(path: Path) -> None:
    """Its header promises frames of 128 megapixels."""
    source = write_clip(path.with_name(f".good-{path.name}"), frames=2, codec="rawvideo", pix_fmt="bgr24")
    data = bytearray(source.read_bytes())
    struct.pack_into("<ii", data, data.index(b"strf") + 12, 16000, 8000)
    path.write_bytes(data)


# How each is written, what its error says, and how many frames are labelled all the same (None: some).
HOSTILE: dict[str, tuple[Callable[[Path], object], str, int | None]] = {
    "empty.mkv": (_bytes(b""), "empty file (0 bytes)", 0),
    "junk.mp4": (_bytes(b"no video at all" * 100), "not a video file", 0),
    "zeros.mp4": (_bytes(bytes(10**5)), "not a video file", 0),
    "noise.mpg": (_bytes(np.random.default_rng(0).bytes(10**5)), "not a video file", 0),
    "text.avi": (_bytes("Überraschung\n".encode() * 100), "not a video file", 0),
    "archive.mkv": (_archive, "not a video file", 0),
    "playlist.mp4": (
        _bytes(b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\ngood.mp4\n#EXT-X-ENDLIST\n"),
        "not a video file",
        0,
    ),
    "concat.mp4": (_bytes(b"ffconcat version 1.0\nfile good.mp4\n"), "cannot be opened", 0),
    "sound.mp4": (write_audio, "no video stream (audio only)", 0),
    "no_index.mp4": (_cut(0.5), "its index (moov) is missing: the file was cut off", 0),
    "cut.mkv": (_cut(0.5), "cut off: about 22 frames", None),
    "head.webm": (
        _bytes(bytes.fromhex("1a45dfa3a34286810142f7810142f2810442f381084282847765626d")),
        "not a video file",
        0,
    ),
    "damaged.mp4": (_damaged, "frames could not be decoded", None),
    "huge.avi": (_huge, "frame size too large (16000x8000, limit 67108864 pixels)", 0),
    "many_frames.mp4": (_patched(b"stsz", 8, 100_000), "no frames (nothing of its h264 stream can be decoded)", 0),
    "long_frames.mp4": (_patched(b"stts", 12, 2**31 - 1), "", None),
    "offsets.mp4": (_patched(b"stco", 8, 2**31), "no frames", 0),
    "loop.mp4": (lambda path: path.symlink_to(path.name), "cannot be opened (Too many levels of symbolic links)", 0),
    "gone.mp4": (lambda path: path.symlink_to("absent"), "file not found", 0),
    "device.mp4": (lambda path: path.symlink_to(os.devnull), "empty file (0 bytes)", 0),
    "pipe.mp4": (os.mkfifo, "empty file (0 bytes)", 0),
    "junk_images": (_junk_images, "frame_0.jpg: not an image that can be read", 0),
    "huge_images": (_huge_images, "frame_0.png: not an image that can be read", 0),
    "half_images": (_half_images, "frame_4.png: not an image that can be read", 0),
    "other_sizes": (_other_sizes, "frame_4.png: is 64x48, the first image 128x96", 0),
}
