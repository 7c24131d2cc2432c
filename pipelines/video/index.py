"""Plans a video once, decoding it only where its timestamps do not say which frames there are.

`plan_video` reads a file's timestamps, picks the frames to keep, and cuts them at key frames into segments, which
`pipelines.video.decode` decodes independently.
"""

import bisect
import itertools
import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from jaxtyping import Float64, Int64

from pipelines.video.ffmpeg import VideoPacket, decode_packet, demux, open_image, open_video
from pipelines.video.heartbeat import beat
from pipelines.video.names import list_images
from pipelines.video.options import Sampling
from pipelines.video.orientation import Orientation
from pipelines.video.plan import Segment, VideoError, VideoInfo, VideoPlan, select, with_further
from pipelines.video.truncation import is_cut_off

_MOST_REORDERED = 16  # frames, in H.264 and HEVC
_PROBED = 64  # packets


@dataclass(frozen=True, kw_only=True)
class _Key:
    """A key frame: the timestamp that identifies it, the one to seek to, and whether decoding is exact from it on."""

    pts: int
    seek: int
    exact: bool


@dataclass(kw_only=True)
class _Scan:
    """What a file's packets say.

    Attributes:
        first: the first frame; no other is decoded.
        shown: dts, pts and duration, in ticks, of each packet whose frame is shown.
        keys: key frames, also those that an edit list hides: what is shown after them needs them.
        packets: number of packets, hidden ones included.
    """

    first: av.VideoFrame | None = None
    shown: list[tuple[int | None, int | None, int]] = field(default_factory=list)
    keys: list[_Key] = field(default_factory=list)
    packets: int = 0


@dataclass(frozen=True, kw_only=True)
class _Index:
    """The frames of a file, in order of presentation.

    Attributes:
        info: the file's description.
        pts: timestamp of each frame, ticks; may repeat if frames are counted.
        times_s: seconds since the first frame.
        keys: key frames at which the file can be cut; none if frames are counted.
        tick: seconds per tick.
    """

    info: VideoInfo
    pts: Int64[np.ndarray, " F"]
    times_s: Float64[np.ndarray, " F"]
    keys: list[_Key]
    tick: float


def plan_video(path: str, sampling: Sampling, segment_frames: int | None) -> VideoPlan:
    """Reads a video's index and decides which frames to keep and how to cut them into segments.

    Args:
        path: a file, or a folder of images, whose frame rate is `sampling.fps`, or 1.
        sampling: which frames to keep.
        segment_frames: largest number of kept frames per segment, exceeded only where key frames are farther apart;
            None makes one segment.

    Raises:
        VideoError: if there is nothing to decode; gives the reason.
        ValueError: for a segment length below 1.
    """
    if segment_frames is not None and segment_frames < 1:
        raise ValueError(f"segment_frames: is {segment_frames}; give 1 or more, or None for one segment")
    if os.path.isdir(path):
        return _plan_images(path, sampling, segment_frames)
    index = _read_index(path)
    pts, keys = index.pts, index.keys
    # Matroska rounds timestamps to milliseconds: at 30 frames/s, 33 ms stands for frame 1.
    kept = select(sampling, index.times_s, tolerance_s=min(index.tick, 1e-3))
    segments: list[Segment] = []
    for start, stop in itertools.pairwise(_cuts(pts[kept], keys, segment_frames)):
        frames = kept[start:stop]
        key = _entry(int(pts[frames[0]]), keys) if start else None
        segments.append(
            Segment(
                index=len(segments),
                frames=frames,
                times_s=index.times_s[frames],
                pts=pts[frames],
                start_pts=key.pts if key else None,
                seek=key.seek if key else 0,
            )
        )
    return VideoPlan(info=index.info, segments=tuple(segments))


def _read_index(path: str) -> _Index:
    with open_video(path) as (container, stream):
        scan = _scan(stream, demux(container, stream))
        if scan.first is None or not scan.shown:
            raise VideoError(f"no frames (nothing of its {stream.codec_context.name} stream can be decoded)")
        rate = float(stream.average_rate or stream.guessed_rate or 1)
        tick, keys = float(stream.time_base or 1), sorted(scan.keys, key=lambda key: key.pts)
        if container.format.name == "mpeg":  # after seeking, FFmpeg gives its packets other times
            keys = []
        timestamps = _are_timestamps(container, stream, scan) and not _are_fields(path, stream, scan.first)
        if timestamps:
            times = sorted(t for _, t, _ in scan.shown if t is not None)
            from_key = min((key.pts for key in scan.keys), default=times[0])
            if times[0] < from_key:  # some may refer to frames that are missing
                before = _presented_before(path, from_key)
                times = [t for t in times if t >= from_key or t in before]
            pts = np.array(times, dtype=np.int64)
        else:
            pts, keys = _count(path, container, 1 / rate / tick), []
        times_s = (pts - pts[0]) * tick
        span = float(times_s[-1])
        fps = (len(pts) - 1) / span if span else rate
        last_s = max(scan.shown, key=lambda packet: packet[1] or packet[0] or 0)[2] * tick or min(1 / fps, 1 / rate)
        missing, cut_off = _missing(path, container, stream, scan, float(pts[-1]) * tick + last_s, fps)
        if last_s > 1 / fps:  # the last frame is held
            fps = len(pts) / (span + last_s)
        height, width = Orientation.of(scan.first).shown(scan.first.height, scan.first.width)
        info = VideoInfo(
            frames=len(pts),
            missing_frames=missing,
            cut_off=cut_off,
            fps=fps,
            width=width,
            height=height,
            duration_s=span + last_s,
            codec=stream.codec_context.codec.canonical_name,
            timestamps=timestamps,
        )
    return _Index(info=info, pts=pts, times_s=times_s, keys=keys, tick=tick)


def _scan(stream: VideoStream, packets: Iterable[VideoPacket]) -> _Scan:
    scan = _Scan()
    for packet in packets:
        beat()
        scan.first = scan.first or next(iter(decode_packet(stream, packet)), None)
        scan.packets += 1
        if packet.is_keyframe and packet.pts is not None:
            seek = packet.pts if packet.dts is None else packet.dts
            scan.keys.append(_Key(pts=packet.pts, seek=seek, exact=_is_exact(stream, packet)))
        if not packet.is_discard and _is_shown(stream, packet):
            scan.shown.append((packet.dts, packet.pts, packet.duration or 0))
    scan.first = scan.first or next(iter(decode_packet(stream, None)), None)
    return scan


def _is_shown(stream: VideoStream, packet: VideoPacket) -> bool:
    """Checks that a packet has a frame to show: VP8 codes references that are never shown as packets of their own."""
    return stream.codec_context.name not in ("vp8", "libvpx") or bool(memoryview(packet)[0] & 0x10)


def _are_timestamps(container: InputContainer, stream: VideoStream, scan: _Scan) -> bool:
    """Checks that presentation times identify frames.

    They do not if one is missing or given twice, or if decoding times decrease, as in joined recordings; where FFmpeg
    has mended half of a joint, a frame is shown before it is decoded, or long after those that follow. AVI has none,
    and FFmpeg's guess is wrong. Copied from AVI or a raw stream, frames that are reordered have decoding times instead,
    maybe all of them late by the same time.
    """
    decoding = [dts for dts, _, _ in scan.shown if dts is not None]
    presentation = {pts for _, pts, _ in scan.shown}
    delays = {pts - dts for dts, pts, _ in scan.shown if dts is not None and pts is not None}
    reordered = stream.codec_context.has_b_frames and len(scan.shown) > 1
    return (
        container.format.name != "avi"
        and None not in presentation
        and len(presentation) == len(scan.shown)
        and all(a <= b for a, b in itertools.pairwise(decoding))
        and min(delays, default=0) >= 0
        and _delay([pts for _, pts, _ in scan.shown if pts is not None]) <= _MOST_REORDERED
        and not (reordered and len(delays) == 1)
    )


def _delay(presentation: Sequence[int]) -> int:
    """Returns how many places later than it is decoded a frame is shown, at most; times are in order of decoding."""
    place = np.argsort(np.argsort(presentation))
    return int((place - np.arange(len(place))).max(initial=0))


def _are_fields(path: str, stream: VideoStream, first: av.VideoFrame) -> bool:
    """Checks whether packets hold single fields, two for a frame, as interlaced H.264 may; decodes the first ones."""
    if stream.codec_context.name != "h264" or not first.interlaced_frame:
        return False
    with open_video(path) as (container, again):
        packets = list(itertools.islice(demux(container, again), _PROBED))
        frames = sum(len(decode_packet(again, packet)) for packet in (*packets, None))
    return frames < 0.75 * len(packets)


def _presented_before(path: str, pts: int) -> set[int | None]:
    """Decodes a file up to a key frame; returns the times of the frames that are shown before it."""
    with closing(_decoded(path)) as frames:
        before = itertools.takewhile(lambda frame: frame.pts is not None and frame.pts < pts, frames)
        return {frame.pts for frame in before if not frame.is_corrupt}


def _count(path: str, container: InputContainer, step: float) -> Int64[np.ndarray, " F"]:
    """Returns timestamps for frames that are identified by counting; decodes the file, to count as decoding will.

    Args:
        path: the file.
        container: its container.
        step: ticks per frame at the stated rate, for frames without any time.
    """
    both = [(frame.pts, frame.dts) for frame in _decoded(path)]
    presentation, decoding = [pts for pts, _ in both], [dts for _, dts in both]
    times = decoding if container.format.name == "avi" else min(presentation, decoding, key=_disorder)
    known = np.array([time for time in times if time is not None], dtype=np.float64)
    if not times:
        raise VideoError("no frames (nothing of it can be decoded)")
    if len(known) < len(times) or (known == known[0]).all():
        return np.round(np.arange(len(times)) * step).astype(np.int64)
    steps = np.diff(known)
    steps[steps < 0] = np.median(steps[steps >= 0])  # where recordings were joined, the second one begins at its start
    ticks: Int64[np.ndarray, " F"] = np.round(known[0] + np.concatenate([[0.0], steps.cumsum()])).astype(np.int64)
    return ticks


def _decoded(path: str) -> Generator[av.VideoFrame]:
    """Yields the frames of a file in order of presentation."""
    with open_video(path) as (container, stream):
        for packet in itertools.chain(demux(container, stream), [None]):
            beat()
            yield from decode_packet(stream, packet)


def _disorder(times: Sequence[int | None]) -> int:
    """Returns how many times are missing or earlier than the one before; ffmpeg as well takes those that err less."""
    known = [time for time in times if time is not None]
    return len(times) - len(known) + sum(b < a for a, b in itertools.pairwise(known))


def _plan_images(folder: str, sampling: Sampling, segment_frames: int | None) -> VideoPlan:
    names = list_images(folder)
    if not names:
        raise VideoError("no frames (a folder without JPEG or PNG images)")
    fps = sampling.fps or 1.0
    with open_image(os.path.join(folder, names[0])) as (first, orientation):
        height, width = orientation.shown(first.height, first.width)
    kept = with_further(sampling, np.arange(0, len(names), sampling.stride), np.arange(len(names)) / fps)
    step = segment_frames or len(kept)
    info = VideoInfo(
        frames=len(names),
        fps=fps,
        width=width,
        height=height,
        duration_s=len(names) / fps,
        codec="images",
    )
    cuts = (kept[start : start + step] for start in range(0, len(kept), step))
    segments = (Segment(index=i, frames=frames, times_s=frames / fps, pts=frames) for i, frames in enumerate(cuts))
    return VideoPlan(info=info, segments=tuple(segments))


def _cuts(kept_pts: Int64[np.ndarray, "K"], keys: list[_Key], limit: int | None) -> list[int]:
    """Returns segment boundaries among the kept frames: at key frames, each segment as long as `limit` allows."""
    cuts, candidate = [0], 0
    at_keys = np.searchsorted(kept_pts, [key.pts for key in keys]).tolist() if limit else []
    for boundary in [*at_keys, len(kept_pts)]:
        if limit and boundary - cuts[-1] > limit and candidate > cuts[-1]:
            cuts.append(candidate)
        candidate = boundary
    return [*cuts, len(kept_pts)]


def _entry(pts: int, keys: list[_Key]) -> _Key | None:
    """Returns the key frame from which the frame at `pts` and all later ones decode exactly; None is the file's start.

    Frames shown before a key frame but coded after it (an open GOP) belong to the previous segment, which keeps reading
    until it has them. At some H.264 key frames the picture only begins to be rebuilt (periodic intra refresh); decoding
    then starts one key frame earlier.
    """
    index = bisect.bisect_right(keys, pts, key=lambda key: key.pts) - 1
    if not keys[index].exact:
        index -= 1
    return keys[index] if index >= 0 else None


def _is_exact(stream: VideoStream, packet: VideoPacket) -> bool:
    """Checks that decoding can start at a key frame's packet; in H.264, only at an IDR picture (NAL unit type 5)."""
    if stream.codec_context.name != "h264":
        return True
    data, extra = bytes(packet), stream.codec_context.extradata or b""
    if extra[:1] != b"\x01":  # start codes
        return any(unit[:1] and unit[0] & 31 == 5 for unit in data.split(b"\0\0\1")[1:])
    length_bytes, offset = (extra[4] & 3) + 1, 0
    while offset + length_bytes < len(data):
        if data[offset + length_bytes] & 31 == 5:
            return True
        offset += length_bytes + int.from_bytes(data[offset : offset + length_bytes])
    return False


def _missing(
    path: str, container: InputContainer, stream: VideoStream, scan: _Scan, end_s: float, fps: float
) -> tuple[int, bool]:
    """Returns how many frames are missing at the end, as far as the file says, and whether it is cut off.

    The index of an MP4 lists all frames, and its boxes their sizes; Matroska states its size and its duration.
    """
    if "mp4" in container.format.name.split(","):
        missing = max(0, len(stream.index_entries) - scan.packets)
        return missing, missing > 0 or is_cut_off(path, container.format.name)
    if not is_cut_off(path, container.format.name):
        return 0, False
    if "matroska" in container.format.name.split(",") and container.duration:
        return max(0, round((container.duration / av.time_base - end_s) * fps)), True
    return 0, True
