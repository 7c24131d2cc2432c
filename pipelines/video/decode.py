"""Segments of a planned video to pixels.

`decode` yields one segment's frames. Neither segments nor batches change which frames come out, or their pixels.
"""

import itertools
import os
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import Float64, Int64, UInt8

from pipelines.video.decord_reader import decord_frames
from pipelines.video.ffmpeg import decode_packet, demux, open_image, open_video, quarter_turns, upright_size
from pipelines.video.names import list_images
from pipelines.video.plan import Segment, VideoError, VideoInfo


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameBatch:
    """Decoded frames.

    Attributes:
        frames: RGB, upright.
        frame: Position of each in the video.
        time_s: Seconds since the video's first frame.
    """

    frames: UInt8[np.ndarray, "B h w 3"]
    frame: Int64[np.ndarray, "B"]
    time_s: Float64[np.ndarray, "B"]


def decode(
    path: str, info: VideoInfo, segment: Segment, *, size: tuple[int, int] | None, batch_size: int
) -> Iterator[FrameBatch]:
    """Decodes one segment of a planned video.

    Damage in a file is passed over: what cannot be decoded is left out, so that fewer frames than `segment.frames` may
    come, even none; the caller compares the counts. Sound and cut-off files give the same pixels whatever the segments.
    Where bytes inside a file are damaged only `pyav` does; decord may repeat a frame, or fail a little sooner or later.

    Args:
        path: What was planned.
        info: The plan's.
        segment: One of the plan's.
        size: Height and width to resize to, pixels, after rotation; None is the video's own.
        batch_size: Frames per batch; the last batch may have fewer.

    Yields:
        Batches in order of presentation.

    Raises:
        VideoError: if the file is gone or, in a folder of images, an image is broken or of another size than the first.
    """
    size = size or (info.height, info.width)
    read = {"decord": _read_decord, "pyav": _read_pyav, "images": _read_images}[info.reader]
    images = read(path, info, segment, size)
    while batch := list(itertools.islice(images, batch_size)):
        at = np.array([position for position, _ in batch])
        pixels = np.stack([image for _, image in batch])
        yield FrameBatch(frames=pixels, frame=segment.frames[at], time_s=segment.times_s[at])


def _read_decord(
    path: str, info: VideoInfo, segment: Segment, size: tuple[int, int]
) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    done = 0
    for image in decord_frames(path, segment.frames, size):
        yield done, image
        done += 1
    if done < len(segment.frames):
        yield from _read_pyav(path, info, segment, size, skip=done)


def _read_pyav(
    path: str, info: VideoInfo, segment: Segment, size: tuple[int, int], skip: int = 0
) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    wanted = {pts: position for position, pts in enumerate(segment.pts.tolist()) if position >= skip}
    last = int(segment.pts[-1])
    scaler = VideoReformatter()
    counter = itertools.count()
    with closing(_frames(path, segment)) as frames:
        for frame in frames:
            pts = frame.pts if info.timestamps else next(counter)
            if pts is None or frame.is_corrupt:
                continue
            if (position := wanted.pop(pts, None)) is not None:
                yield position, _to_rgb(frame, size, scaler)
            if pts >= last:
                return


def _read_images(
    path: str, info: VideoInfo, segment: Segment, size: tuple[int, int]
) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    names = list_images(path)
    for position, frame in enumerate(segment.frames.tolist()):
        if frame >= len(names):
            return
        with open_image(os.path.join(path, names[frame])) as image:
            if upright_size(image) != (info.height, info.width):
                height, width = upright_size(image)
                raise VideoError(f"{names[frame]}: is {width}x{height}, the first image {info.width}x{info.height}")
            rgb = _to_rgb(image, size, VideoReformatter())
        yield position, rgb


def _to_rgb(frame: av.VideoFrame, size: tuple[int, int], scaler: VideoReformatter) -> UInt8[np.ndarray, "h w 3"]:
    """Resizes, which as decord does averages over all pixels that a smaller one covers, and turns upright."""
    turns = quarter_turns(frame)
    height, width = size if turns % 2 == 0 else size[::-1]
    rgb = scaler.reformat(
        frame, width=width, height=height, format="rgb24", interpolation=Interpolation.BILINEAR, threads=1
    )
    return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), turns))


def _frames(path: str, segment: Segment) -> Generator[av.VideoFrame]:
    """Yields decoded frames from the segment's key frame on; if seeking does not lead there, from the file's start."""
    for seek in (segment.seek, None) if segment.start_pts is not None else (None,):
        with open_video(path) as (container, stream):
            if seek is not None:
                with suppress(av.error.FFmpegError):
                    container.seek(seek, stream=stream)
            packets = demux(container, stream)
            if segment.start_pts is not None:
                packets = itertools.dropwhile(lambda packet: packet.pts != segment.start_pts, packets)
            found = False
            for packet in packets:
                found = True
                yield from decode_packet(stream, packet)
            if found:
                yield from decode_packet(stream, None)
                return
