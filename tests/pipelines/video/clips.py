"""Small real video files, made with PyAV. Every frame shows its own number, as blocks that survive lossy coding."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

os.environ.setdefault("SVT_LOG", "1")  # errors only
COLUMNS, ROWS = 4, 2  # blocks: bits of the frame number

H264 = {"g": "8", "bf": "3", "b-adapt": "0", "sc_threshold": "0"}
OPEN_GOP = {"x264-params": "open-gop=1:bframes=3:keyint=8:min-keyint=8:scenecut=0:b-adapt=0:ref=4"}
HEVC = {"x265-params": "log-level=none:keyint=8:min-keyint=8:bframes=3:open-gop=1:pools=1:frame-threads=1"}
VFR = [Fraction(i * i + 30 * i, 1000) for i in range(48)]

# file name → how `listed_clip` writes it, and into how many segments it can be cut (None: several)
CLIPS: dict[str, tuple[dict[str, Any], int | None]] = {
    "b_frames.mp4": ({"options": H264}, 6),
    "b_frames.mkv": ({"options": H264}, 6),
    "b_frames.avi": ({"options": H264}, 1),
    "open_gop.mp4": ({"options": OPEN_GOP}, None),
    "open_gop.mkv": ({"options": OPEN_GOP}, None),
    "open_gop.ts": ({"options": OPEN_GOP}, None),
    "refresh.mp4": ({"options": {"x264-params": "intra-refresh=1:bframes=0:keyint=12:scenecut=0"}}, 4),
    "elementary.h264": ({"options": H264, "fps": 25}, 1),
    "hevc.mp4": ({"codec": "libx265", "options": HEVC}, None),
    "vp9.webm": ({"codec": "libvpx-vp9", "options": {"g": "12", "cpu-used": "5"}}, 4),
    "av1.mp4": ({"codec": "libsvtav1", "options": {"g": "12", "preset": "12"}}, 4),
    "av1.mkv": ({"codec": "libsvtav1", "options": {"g": "12", "preset": "12"}}, 4),
    "mpeg4.mp4": ({"codec": "mpeg4", "options": {"bf": "2", "g": "8"}}, None),
    "mpeg4.avi": ({"codec": "mpeg4", "options": {"bf": "2", "g": "8"}}, 1),
    "mpeg2.mpg": ({"codec": "mpeg2video", "options": {"bf": "2", "g": "8"}}, 1),
    "intra.mov": ({"codec": "mjpeg", "pix_fmt": "yuvj420p"}, 48),
    "variable.mp4": ({"times": VFR, "options": H264}, None),
    "rotated_90.mp4": ({"rotation": 90, "options": H264}, 6),
    "rotated_180.mp4": ({"rotation": 180, "options": H264}, 6),
    "rotated_270.mp4": ({"rotation": 270, "options": H264}, 6),
    "rotated_270.mkv": ({"rotation": 270, "options": H264}, 6),
    "odd.mp4": ({"size": (75, 101), "pix_fmt": "yuv444p", "options": H264}, 6),
    "one.mp4": ({"frames": 1}, 1),
}

Clip = Callable[[str], str]  # a listed clip's name → its path


def picture(number: int, height: int, width: int) -> np.ndarray:
    """A frame, uint8 [height, width, 3]: white blocks are ones, dark blue ones zeros; a red corner and moving grain."""
    bits = np.array([number >> bit & 1 for bit in range(COLUMNS * ROWS)]).reshape(ROWS, COLUMNS)
    on = bits[np.arange(height)[:, None] * ROWS // height, np.arange(width) * COLUMNS // width]
    frame = np.where(on[..., None], (235, 235, 235), (20, 20, 90)).astype(np.int64)
    grain = np.random.default_rng(number).integers(0, 16, size=(height // 4 + 1, width // 4 + 1, 1))
    frame = frame - grain.repeat(4, 0).repeat(4, 1)[:height, :width]
    frame[: height // 8, : width // 16] = (230, 30, 30)
    return frame.clip(0, 255).astype(np.uint8)


def number(frame: np.ndarray) -> int:
    """The number that `picture` wrote, read back from any size of it."""
    height, width, _ = frame.shape
    rows = (2 * np.arange(ROWS) + 1) * height // (2 * ROWS)
    columns = (2 * np.arange(COLUMNS) + 1) * width // (2 * COLUMNS)
    bits = frame[np.ix_(rows, columns)].mean(-1).ravel() > 128
    return int((bits << np.arange(bits.size)).sum())


def corner_is_red(frame: np.ndarray) -> bool:
    """Whether the upper left corner is red, as it is in an upright frame."""
    height, width, _ = frame.shape
    red, green, blue = frame[height // 20, width // 40].astype(int)
    return bool(red > 140 and green < 110 and blue < 110)


def write_clip(
    path: Path,
    *,
    frames: int = 48,
    codec: str = "libx264",
    size: tuple[int, int] = (96, 128),
    fps: int = 24,
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    times: Sequence[Fraction] | None = None,
    rotation: int = 0,
    container_options: Mapping[str, str] | None = None,
    draw: Callable[[int, int, int], np.ndarray] = picture,
) -> Path:
    """Encodes frames 0, 1, … into a file whose container follows from its name.

    Args:
        size: Height and width of the coded frames, pixels; `rotation` is only noted beside them.
        times: Presentation time of each frame, seconds; a constant frame rate if not given.
        rotation: Display rotation, degrees counter-clockwise; the frames are turned to be upright when shown.
        draw: Makes a frame from its number, height and width.
    """
    tick = Fraction(1, 1000) if times else Fraction(1, fps)
    with _usual_priority(), av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream = container.add_stream(codec, rate=fps, options=dict(options or {}))
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = tick
        stream.codec_context.thread_count = 1
        if rotation:
            stream.set_display_rotation(rotation)
        turns = rotation // 90
        upright = size if turns % 2 == 0 else size[::-1]
        for i in range(frames):
            image = np.ascontiguousarray(np.rot90(draw(i, *upright), -turns))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.time_base = tick
            frame.pts = round(times[i] / tick) if times else i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@contextmanager
def _usual_priority() -> Iterator[None]:
    """SVT-AV1 gives real-time priority to whoever calls it as root; all that a test starts from then on would have it,
    Ray above all, and starve the rest of the machine."""
    if not hasattr(os, "sched_getscheduler"):  # no Linux
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def listed_clip(folder: Path, name: str) -> str:
    """The path of one of `CLIPS`, which is written when first asked for."""
    path = folder / name
    return str(path if path.exists() else write_clip(path, **CLIPS[name][0]))


def mux(path: Path, *streams: Path, times: Sequence[int] | None = None, hidden: int = 0) -> str:
    """Copies the first video stream of each file.

    Args:
        path: the file to write.
        streams: the files to copy from.
        times: milliseconds, at which the packets are decoded and shown; as they are in the source if not given.
        hidden: number of first frames that an edit list hides.
    """
    with ExitStack() as stack, av.open(str(path), "w") as target:
        sources = [stack.enter_context(av.open(str(source))).streams.video[0] for source in streams]
        copies = [target.add_stream_from_template(source) for source in sources]
        for source, copy in zip(sources, copies, strict=True):
            ticks = round(hidden / (source.average_rate or 1) / (source.time_base or 1))
            for i, packet in enumerate(packet for packet in source.container.demux(source) if packet.size):
                packet.stream = copy
                if times:
                    packet.time_base = Fraction(1, 1000)
                    packet.pts = packet.dts = times[i]
                elif packet.dts is not None:  # AVI has no other times
                    packet.pts = (packet.dts if packet.pts is None else packet.pts) - ticks
                    packet.dts -= ticks
                target.mux(packet)
    return str(path)


def write_audio(path: Path) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    return path


def write_images(folder: Path, frames: int, *, suffix: str = ".png", size: tuple[int, int] = (96, 128)) -> Path:
    """A folder of frames whose names sort naturally, not alphabetically: frame_8, frame_9, frame_10."""
    folder.mkdir(parents=True)
    for i in range(frames):
        write_image(folder / f"frame_{i}{suffix}", picture(i, *size))
    return folder


def write_image(path: Path, image: np.ndarray) -> None:
    """One PNG or JPEG file."""
    codec, pix_fmt = ("png", "rgb24") if path.suffix == ".png" else ("mjpeg", "yuvj420p")
    encoder = av.CodecContext.create(codec, "w")
    encoder.height, encoder.width = image.shape[:2]
    encoder.pix_fmt, encoder.time_base = pix_fmt, Fraction(1, 1)
    packets = encoder.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt))
    path.write_bytes(b"".join(bytes(packet) for packet in [*packets, *encoder.encode()]))


def cut_off(source: Path, target: Path, share: float) -> Path:
    """A copy that ends after this share of the bytes."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def damage(source: Path, target: Path, start: float, length: int = 400) -> Path:
    """A copy with `length` random bytes from this share of the file on."""
    data = bytearray(source.read_bytes())
    at = int(len(data) * start)
    data[at : at + length] = np.random.default_rng(0).bytes(len(data[at : at + length]))
    target.write_bytes(data)
    return target
