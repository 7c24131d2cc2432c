"""Videos of kinds that tools often read wrongly; nothing is missing in them. Frames show their number."""

import struct
from collections.abc import Callable
from pathlib import Path

import av

from tests.pipelines.video.clips import H264, mux, picture, write_clip, write_image
from tests.pipelines.video.fields import write_fields

FRAMES = 24


def write_odd(folder: Path, name: str) -> None:
    """Writes one of `ODD` into a folder."""
    ODD[name][0](folder / name)


def _plain(path: Path, suffix: str = ".mp4", size: tuple[int, int] = (96, 128)) -> Path:
    """A plain video beside the file, hidden."""
    return write_clip(path.with_name(f".{size[0]}-{path.stem}{suffix}"), frames=FRAMES, size=size, options=H264)


def _edit_list(path: Path) -> None:
    """An edit list begins at frame 12, between the key frames 8 and 16."""
    mux(path, _plain(path), hidden=12)


def _trimmed_end(path: Path) -> None:
    """An edit list ends before frame 12."""
    data = bytearray(_plain(path).read_bytes())
    struct.pack_into(">I", data, data.index(b"elst") + 12, 500)  # milliseconds
    path.write_bytes(data)


def _two_tracks(path: Path) -> None:
    mux(path, _plain(path), _plain(path, size=(64, 96)))


def _decode_times(path: Path) -> None:
    """B-frames copied from AVI, which says only when they are decoded."""
    mux(path, _plain(path, ".avi"))


def _alt_ref(path: Path) -> None:
    """VP8 with packets that are never shown."""
    options = {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "1M", "g": "24", "cpu-used": "5", "deadline": "good"}
    write_clip(path, frames=FRAMES, codec="libvpx", options=options)


def _empty_chunks(path: Path) -> None:
    """Chunks without bytes in place of the frames 6 to 9."""
    options = {"g": "1"}
    plain = write_clip(path.with_name(f".plain-{path.name}"), frames=FRAMES, codec="mpeg4", options=options)
    data, movi = plain.read_bytes(), plain.read_bytes().index(b"movi")
    kept, at = bytearray(data[: movi + 4]), movi + 4
    for i in range(FRAMES):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little") + 1 & ~1
        kept += b"00dc" + bytes(4) if 6 <= i < 10 else data[at:end]
        at = end
    struct.pack_into("<I", kept, movi - 4, len(kept) - movi)
    struct.pack_into("<I", kept, 4, len(kept) - 8)
    path.write_bytes(kept)  # without an index, which would have the old places


def _mirrored(path: Path) -> None:
    data = bytearray(_plain(path).read_bytes())
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, -65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def _fields(path: Path) -> None:
    write_fields(path, [picture(i, 96, 128) for i in range(FRAMES)])


def _leading(path: Path) -> None:
    """HEVC from its second key frame on, which two frames precede that do without the ones before."""
    options = {"x265-params": "log-level=none:radl=2:open-gop=0:keyint=12:min-keyint=12:bframes=3:b-adapt=0:pools=1"}
    plain = write_clip(path.with_name(f".plain-{path.name}"), frames=FRAMES, codec="libx265", options=options)
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copy, keys = target.add_stream_from_template(stream), 0
        for packet in source.demux(stream):
            keys += packet.is_keyframe
            if packet.size and keys > 1:
                packet.stream = copy
                target.mux(packet)


def _joined(path: Path) -> None:
    """One frame, which is decoded late, before the others begin at an earlier time: FFmpeg mends half of its times."""
    options = {"bf": "2", "g": "12", "q:v": "2"}
    parts = []
    for name, frames, begin in (("one", [0], 5.0), ("more", [*range(1, FRAMES)], 0.0)):
        part = path.with_name(f".{name}-{path.name}")
        write_clip(
            part,
            frames=len(frames),
            codec="mpeg2video",
            fps=25,
            options=options,
            container_options={"output_ts_offset": str(begin)},
            draw=lambda i, height, width, frames=frames: picture(frames[i], height, width),
        )
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))


def _animation(path: Path) -> None:
    write_clip(path, frames=FRAMES, codec="gif", fps=10, pix_fmt="rgb8")


def _odd_digits(path: Path) -> None:
    """Frames whose names have digits that are no numbers."""
    path.mkdir()
    for i, name in enumerate(("2", "10", "²1", "٣1")):
        write_image(path / f"{name}.png", picture(i, 96, 128))


# How each is written, and the numbers that its frames show, in order.
ODD: dict[str, tuple[Callable[[Path], None], list[int]]] = {
    "edit_list.mp4": (_edit_list, [*range(12, FRAMES)]),
    "trimmed_end.mp4": (_trimmed_end, [*range(12)]),
    "two_tracks.mp4": (_two_tracks, [*range(FRAMES)]),
    "decode_times.mp4": (_decode_times, [*range(FRAMES)]),
    "alt_ref.webm": (_alt_ref, [*range(FRAMES)]),
    "empty_chunks.avi": (_empty_chunks, [i for i in range(FRAMES) if not 6 <= i < 10]),
    "mirrored.mp4": (_mirrored, [*range(FRAMES)]),
    "fields.ts": (_fields, [*range(FRAMES)]),
    "fields.mp4": (_fields, [*range(FRAMES)]),
    "leading.ts": (_leading, [*range(10, FRAMES)]),
    "joined.ts": (_joined, [*range(FRAMES)]),
    "animation.gif": (_animation, [*range(FRAMES)]),
    "odd_digits": (_odd_digits, [*range(4)]),
}
