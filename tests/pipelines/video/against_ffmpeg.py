"""What we read of generated files, against ffmpeg's own output.

Files are codec × container × edit list × display matrix × timing × damage, made by ffmpeg; frames show their number.
`python -m tests.pipelines.video.against_ffmpeg NUMBER` tries that many of all possible files, and the telling ones.
"""

import itertools
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.video.decode import decode
from pipelines.video.index import plan_video
from pipelines.video.options import Sampling
from pipelines.video.plan import VideoError
from tests.pipelines.video.clips import cut_off, number, picture

FRAMES, HEIGHT, WIDTH = 40, 96, 128

CODECS = {
    "h264": "-c:v libx264 -bf 0 -g 12",
    "h264_b": "-c:v libx264 -bf 3 -b_strategy 0 -g 12",
    "h264_open": "-c:v libx264 -x264-params open-gop=1:bframes=3:keyint=12:min-keyint=12:b-adapt=0",
    "hevc_b": "-c:v libx265 -x265-params log-level=none:keyint=12:bframes=3:pools=1:frame-threads=1",
    "mpeg4_b": "-c:v mpeg4 -bf 2 -g 12 -q:v 2",
    "mpeg2_b": "-c:v mpeg2video -bf 2 -g 12 -q:v 2",
    "vp8_alt": "-c:v libvpx -auto-alt-ref 1 -lag-in-frames 16 -b:v 1M -g 24 -deadline good -cpu-used 5",
    "vp9": "-c:v libvpx-vp9 -g 12 -b:v 1M -deadline realtime -cpu-used 8",
    "mjpeg": "-c:v mjpeg -q:v 2",
}
H264 = ("h264", "h264_b", "h264_open")
CONTAINERS = {
    "mp4": (*H264, "hevc_b", "mpeg4_b", "vp9"),
    "mov": (*H264, "mpeg4_b", "mjpeg"),
    "mkv": tuple(CODECS),
    "webm": ("vp8_alt", "vp9"),
    "avi": (*H264, "mpeg4_b", "mjpeg"),
    "ts": (*H264, "hevc_b", "mpeg2_b"),
    "flv": ("h264", "h264_b"),
    "nut": ("h264_b", "mpeg4_b"),
}
TIMINGS = {"constant": "", "variable": "-vf setpts=(N+N*N/40)/24/TB", "late": "-output_ts_offset 5.3"}
EDITS = {"whole": (), "start": ("-ss", "0.7"), "end": ("-t", "1.1"), "both": ("-ss", "0.6", "-t", "0.7")}
MATRICES = {
    "upright": None,
    "turned_90": (0, 1, -1, 0),
    "turned_180": (-1, 0, 0, -1),
    "turned_270": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside_down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
}
DAMAGES = ("none", "cut_off", "copied_from_avi", "fragmented")


@dataclass(frozen=True)
class Case:
    """How a file is made; the fields are keys of the tables above."""

    codec: str
    container: str
    timing: str = "constant"
    edit: str = "whole"
    matrix: str = "upright"
    damage: str = "none"

    @property
    def is_possible(self) -> bool:
        """Whether the container has such a thing, and ffmpeg makes it."""
        is_mp4 = self.container in ("mp4", "mov")
        return (
            self.codec in CONTAINERS[self.container]
            and (self.matrix == "upright" or is_mp4)
            and (self.damage != "copied_from_avi" or (is_mp4 and self.codec in CONTAINERS["avi"]))
            and (self.damage != "fragmented" or is_mp4)
            and not (self.codec == "mjpeg" and "-ss" in EDITS[self.edit])  # ffmpeg 5 shows a frame that is edited out
            and (self.timing == "constant" or (self.container != "avi" and self.damage != "copied_from_avi"))
        )

    def __str__(self) -> str:
        return "-".join(vars(self).values())


TELLING = (
    Case("h264_b", "mp4", edit="start"),
    Case("h264_b", "mp4", edit="end"),
    Case("h264_open", "mkv", edit="start"),
    Case("h264_b", "mp4", damage="copied_from_avi"),
    Case("mpeg4_b", "mp4", damage="copied_from_avi"),
    Case("mpeg4_b", "avi"),
    Case("vp8_alt", "webm"),
    Case("h264_b", "mp4", timing="variable", matrix="mirrored"),
    Case("h264", "mov", matrix="transposed"),
    Case("h264", "mp4", matrix="turned_90", edit="both"),
    Case("h264_b", "mp4", damage="fragmented", timing="late"),
    Case("h264_b", "mkv", damage="cut_off"),
    Case("h264_b", "flv", damage="cut_off"),
    Case("mpeg2_b", "ts", damage="cut_off"),
)
"""Those of the kinds that were found wrong once, and their neighbours."""


def every_case() -> list[Case]:
    """All possible files."""
    fields = (CODECS, CONTAINERS, TIMINGS, EDITS, MATRICES, DAMAGES)
    return [case for values in itertools.product(*fields) if (case := Case(*values)).is_possible]


def run(*words: object, stdin: bytes | None = None) -> bytes:
    """Runs a command to its end and returns what it prints."""
    done = subprocess.run([str(word) for word in words], input=stdin, capture_output=True, check=True, timeout=120)
    return done.stdout


def make(case: Case, folder: Path) -> Path:
    """Makes the file of a case."""
    raw = b"".join(picture(i, HEIGHT, WIDTH).tobytes() for i in range(FRAMES))
    source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", "24", "-i", "-")
    encode = ("-pix_fmt", "yuvj420p" if case.codec == "mjpeg" else "yuv420p", *CODECS[case.codec].split())
    fragments = ("-movflags", "frag_keyframe+empty_moov") if case.damage == "fragmented" else ()
    faststart = ("-movflags", "faststart") if case.damage == "cut_off" and case.container in ("mp4", "mov") else ()
    path = folder / f"first.{'avi' if case.damage == 'copied_from_avi' else case.container}"
    ffmpeg = ("ffmpeg", "-v", "error", "-y")
    timing = TIMINGS[case.timing].split()
    run(*ffmpeg, *source, *timing, "-fps_mode", "passthrough", *encode, *fragments, *faststart, path, stdin=raw)
    for number_of_copy, options in enumerate([(), EDITS[case.edit]][path.suffix == f".{case.container}" :]):
        if options or path.suffix != f".{case.container}":
            start, rest = (options[:2], options[2:]) if "-ss" in options else ((), options)
            copy = folder / f"copy_{number_of_copy}.{case.container}"
            run(*ffmpeg, *start, "-i", path, *rest, "-c", "copy", *fragments, *faststart, copy)
            path = copy
    if matrix := MATRICES[case.matrix]:
        data = bytearray(path.read_bytes())
        a, b, c, d = (number * 65536 for number in matrix)
        struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
        path.write_bytes(data)
    return cut_off(path, folder / f"cut.{case.container}", 0.7) if case.damage == "cut_off" else path


@dataclass(frozen=True)
class Frames:
    """What is read of a file: pixels [T, H, W, 3] and seconds since the first frame."""

    pixels: np.ndarray
    times_s: np.ndarray


def theirs(path: Path) -> Frames:
    """What ffmpeg reads; frames that it turned have their pixels in one row each."""
    options = ("-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24")
    raw = run("ffmpeg", "-v", "quiet", "-i", path, *options, "-")
    show = "-v quiet -select_streams v:0 -show_entries frame=best_effort_timestamp_time -of default=nw=1:nk=1"
    times = run("ffprobe", *show.split(), path).decode().split()
    pixels = np.frombuffer(raw, np.uint8).reshape(-1, HEIGHT * WIDTH * 3)
    return Frames(pixels, np.array([float(time) for time in times if time != "N/A"]))


def ours(path: Path, segment_frames: int | None) -> tuple[Frames, object]:
    """What we read, and the description of the video."""
    plan = plan_video(str(path), Sampling(), segment_frames)
    batches = [b for s in plan.segments for b in decode(str(path), plan.info, s, size=None, batch_size=16)]
    pixels = np.concatenate([batch.frames for batch in batches])
    return Frames(pixels, np.concatenate([batch.time_s for batch in batches])), plan.info


def differences(case: Case, folder: Path) -> list[str]:
    """Makes the file of a case and says how our reading differs from ffmpeg's."""
    path = make(case, folder)
    expected = theirs(path)
    try:
        frames, info = ours(path, None)
    except VideoError as error:
        return [f"refused: {error}"] if len(expected.pixels) else []
    found = []
    allowed = 3 if case.damage == "cut_off" else 0  # of frames that are damaged, ours leaves out more
    if abs(len(frames.pixels) - len(expected.pixels)) > allowed:
        return [f"{len(frames.pixels)} frames, not {len(expected.pixels)}"]
    times = expected.times_s - expected.times_s[:1]
    timed = len(times) >= len(frames.pixels) and case.damage != "copied_from_avi"  # which have an order only
    order = np.arange(len(frames.pixels))
    if case.damage == "cut_off" and timed:  # ffmpeg shows what is left of damaged frames
        order = np.array([np.abs(times - time).argmin() for time in frames.times_s])
    shown = expected.pixels[order.clip(max=len(expected.pixels) - 1)].reshape(frames.pixels.shape)
    numbers = [[number(image) for image in images] for images in (frames.pixels, shown)]
    if case.matrix == "upright" and sum(a != b for a, b in zip(*numbers, strict=True)) > allowed:
        found.append(f"order {numbers[0]}, not {numbers[1]}")
    apart = np.abs(frames.pixels.astype(int) - shown).mean((1, 2, 3))
    if (apart > 6).sum() > allowed:
        found.append(f"pixels differ by {apart.max():.1f}")
    if timed and np.abs(frames.times_s - times[order]).max() > 2e-3:
        found.append(f"times {frames.times_s.round(3).tolist()}, not {times[order].round(3).tolist()}")
    in_packets = case.container == "ts" and path.stat().st_size % 188 == 0  # nothing says that others followed
    lost = info.missing_frames or info.cut_off  # type: ignore[attr-defined]
    if lost and case.damage != "cut_off":
        found.append("called cut off")
    if not lost and case.damage == "cut_off" and case.container != "nut" and not in_packets:
        found.append("not called cut off")
    cut, _ = ours(path, 8)
    if not np.array_equal(cut.pixels, frames.pixels) or not np.array_equal(cut.times_s, frames.times_s):
        found.append("segments are visible")
    return found


def main() -> None:
    cases = every_case()
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else len(cases)
    chosen = [*TELLING, *(cases[i] for i in np.random.default_rng(0).permutation(len(cases))[:wanted])]
    outcomes: Counter[str] = Counter()
    for case in chosen:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = differences(case, Path(folder))
            except subprocess.CalledProcessError:
                outcomes["not made by ffmpeg"] += 1
                continue
        outcomes["differ" if found else "agree"] += 1
        if found:
            sys.stdout.write(f"{case} {'; '.join(found)}\n")
    sys.stdout.write(f"{len(cases)} files are possible, {len(chosen)} were tried: {dict(outcomes)}\n")


if __name__ == "__main__":
    assert shutil.which("ffmpeg"), "needs the program ffmpeg"
    main()
