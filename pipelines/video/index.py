"""Plans a video once, without decoding it.

`plan_video` reads a file's timestamps, picks the frames to keep, and cuts them at key frames into segments, which
`pipelines.video.decode` decodes independently.
"""

import bisect
import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import av
import numpy as np
from av.video.stream import VideoStream
from jaxtyping import Int64

from pipelines.video.decord_reader import decord_agrees
from pipelines.video.ffmpeg import (
    VideoPacket,
    decode_packet,
    demux,
    open_image,
    open_video,
    quarter_turns,
    upright_size,
)
from pipelines.video.names import list_images
from pipelines.video.plan import Sampling, Segment, VideoError, VideoInfo, VideoPlan

# For these, decord gives PyAV's frames, bit for bit at native size. For others we have seen wrong frames (MPEG-TS),
# different pixels after seeking (open GOPs, HEVC, MPEG-4), and frames not turned upright (Matroska). It also replaces
# damaged frames by copies of others, so it does not read files that are visibly cut off.
_DECORD_CODECS = ("h264", "vp9")
_DECORD_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")

_COUNTED_FORMATS = ("avi",)  # no presentation timestamps; those that FFmpeg derives from the decoding order are wrong


@dataclass(frozen=True, kw_only=True)
class _Key:
    """A key frame: the timestamp that identifies it, the one to seek to, and whether decoding is exact from it on."""

    pts: int
    seek: int
    exact: bool


def plan_video(
    path: str, sampling: Sampling, segment_frames: int | None, *, reader: Literal["auto", "pyav"] = "auto"
) -> VideoPlan:
    """Reads a video's index and decides which frames to keep and how to cut them into segments.

    Args:
        path: a file, or a folder of images, whose frame rate is `sampling.fps`, or 1.
        sampling: which frames to keep.
        segment_frames: largest number of kept frames per segment, exceeded only where key frames are farther apart;
            None makes one segment.
        reader: `auto` uses decord for files where it is exact and PyAV for others; `pyav` uses PyAV for all. Resized
            pixels of the two differ by rounding.

    Raises:
        VideoError: if there is nothing to decode; gives the reason.
        ValueError: for a segment length below 1.
    """
    if segment_frames is not None and segment_frames < 1:
        raise ValueError(f"segment_frames: is {segment_frames}; give 1 or more, or None for one segment")
    if os.path.isdir(path):
        return _plan_images(path, sampling, segment_frames)
    info, pts, tick, keys = _read_index(path, reader)
    times = (pts - pts[0]) * tick
    # Matroska rounds timestamps to milliseconds: at 30 frames/s, 33 ms stands for frame 1.
    kept = sampling.select(times, tolerance_s=min(tick, 1e-3))
    segments: list[Segment] = []
    for start, stop in itertools.pairwise(_cuts(pts[kept], keys, segment_frames)):
        frames = kept[start:stop]
        key = _entry(int(pts[frames[0]]), keys) if start else None
        segments.append(
            Segment(
                index=len(segments),
                frames=frames,
                times_s=times[frames],
                pts=pts[frames],
                start_pts=key.pts if key else None,
                seek=key.seek if key else 0,
            )
        )
    return VideoPlan(info=info, segments=tuple(segments))


def _read_index(path: str, reader: str) -> tuple[VideoInfo, Int64[np.ndarray, "F"], float, list[_Key]]:
    """Returns a file's description, sorted timestamps, seconds per tick, and key frames in order of presentation."""
    with open_video(path) as (container, stream):
        first, packets, keys, total = _scan(stream, demux(container, stream))
        rate = float(stream.average_rate or stream.guessed_rate or 1)
        timestamps = container.format.name not in _COUNTED_FORMATS and _are_ordered(packets)
        if timestamps:
            # Frames shown before the first key frame refer to missing frames.
            from_key = keys[0].pts if keys else -math.inf
            pts = np.array(sorted({t for _, t in packets if t is not None and t >= from_key}), dtype=np.int64)
            tick = float(stream.time_base or 1)
        else:
            pts, tick, keys = np.arange(len(packets)), 1 / rate, []
        span = float(pts[-1] - pts[0]) * tick
        fps = (len(pts) - 1) / span if span else rate
        turns = quarter_turns(first)
        height, width = upright_size(first)
        info = VideoInfo(
            frames=len(pts),
            missing_frames=_missing(stream, total, float(pts[-1]) * tick + 1 / fps, fps),
            fps=fps,
            width=width,
            height=height,
            duration_s=span + 1 / fps,
            rotation=turns * 90,
            codec=stream.codec_context.codec.canonical_name,
            reader="pyav",
            timestamps=timestamps,
        )
        for_decord = (
            reader == "auto"
            and info.codec in _DECORD_CODECS
            and container.format.name in _DECORD_FORMATS
            and first.format.name == "yuv420p"
            and timestamps
            and all(key.exact for key in keys)
            and (turns, info.missing_frames, total) == (0, 0, len(pts))
        )
    if for_decord and decord_agrees(path, (pts - pts[0]) * tick):
        info = replace(info, reader="decord")
    return info, pts, tick, keys


def _scan(
    stream: VideoStream, demuxed: Iterator[VideoPacket]
) -> tuple[av.VideoFrame, list[tuple[int | None, int | None]], list[_Key], int]:
    """Returns the first frame (no other is decoded), dts and pts of all packets, key frames, and the packet count."""
    first, packets, keys, total = None, [], [], 0
    for packet in demuxed:
        first = first or next(iter(decode_packet(stream, packet)), None)
        total += 1
        if packet.is_discard:  # removed by an edit list
            continue
        packets.append((packet.dts, packet.pts))
        if packet.is_keyframe and packet.pts is not None:
            seek = packet.pts if packet.dts is None else packet.dts
            keys.append(_Key(pts=packet.pts, seek=seek, exact=_is_exact(stream, packet)))
    first = first or next(iter(decode_packet(stream, None)), None)
    if first is None or not packets:
        raise VideoError(f"no frames (nothing of its {stream.codec_context.name} stream can be decoded)")
    return first, packets, sorted(keys, key=lambda key: key.pts), total


def _plan_images(folder: str, sampling: Sampling, segment_frames: int | None) -> VideoPlan:
    names = list_images(folder)
    if not names:
        raise VideoError("no frames (a folder without JPEG or PNG images)")
    fps = sampling.fps or 1.0
    with open_image(os.path.join(folder, names[0])) as first:
        height, width = upright_size(first)
    kept = np.arange(0, len(names), sampling.stride)
    step = segment_frames or len(kept)
    info = VideoInfo(
        frames=len(names),
        fps=fps,
        width=width,
        height=height,
        duration_s=len(names) / fps,
        codec="images",
        reader="images",
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


def _are_ordered(packets: list[tuple[int | None, int | None]]) -> bool:
    """Checks that all packets have a presentation time, and decoding times never decrease, as in joined recordings."""
    decoding = [dts for dts, _ in packets if dts is not None]
    return all(pts is not None for _, pts in packets) and all(a <= b for a, b in itertools.pairwise(decoding))


def _missing(stream: VideoStream, frames: int, end_s: float, fps: float) -> int:
    """Returns how many frames are missing by the header, which states their number (MP4) or a duration (Matroska)."""
    if stream.frames:
        return max(0, stream.frames - frames)
    hours, minutes, seconds = stream.metadata.get("DURATION", "0:0:0").split(":")
    gap_s = int(hours) * 3600 + int(minutes) * 60 + float(seconds) - end_s
    return round(gap_s * fps) if gap_s > 0.5 else 0
