"""Decodes segments of a planned video to pixels.

Neither the segments nor the batch size change which frames come out, or their pixels.
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

from pipelines.video.ffmpeg import decode_packet, demux, open_image, open_video
from pipelines.video.heartbeat import beat
from pipelines.video.names import list_images
from pipelines.video.orientation import Orientation
from pipelines.video.plan import Segment, VideoError, VideoInfo


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameBatch:
    """Decoded frames.

    Attributes:
        frames: RGB, upright.
        frame: position of each frame in the video.
        time_s: seconds since the video's first frame.
    """

    frames: UInt8[np.ndarray, "B h w 3"]
    frame: Int64[np.ndarray, "B"]
    time_s: Float64[np.ndarray, "B"]


def decode(
    path: str, info: VideoInfo, segment: Segment, *, size: tuple[int, int] | None, batch_size: int
) -> Iterator[FrameBatch]:
    """Decodes one segment of a planned video.

    Frames that cannot be decoded are skipped, so there may be fewer frames than in `segment.frames`, even none; the
    caller compares the counts.

    Args:
        path: the planned file or folder of images.
        info: description of the video from its plan.
        segment: a segment from the plan.
        size: height and width to resize to, pixels, after rotation; None keeps the video's size.
        batch_size: frames per batch; the last batch may have fewer.

    Yields:
        Batches in order of presentation.

    Raises:
        VideoError: if the file is missing or, in a folder of images, an image is broken or differs in size from the
            first.
    """
    size = size or (info.height, info.width)
    read = _read_images if info.codec == "images" else _read_video
    images = read(path, info, segment, size)
    while batch := list(itertools.islice(images, batch_size)):
        positions = np.array([position for position, _ in batch])
        pixels = np.stack([image for _, image in batch])
        yield FrameBatch(frames=pixels, frame=segment.frames[positions], time_s=segment.times_s[positions])


def _read_video(
    path: str, info: VideoInfo, segment: Segment, size: tuple[int, int]
) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    ids = (segment.pts if info.timestamps else segment.frames).tolist()
    wanted = {identity: position for position, identity in enumerate(ids)}
    scaler = VideoReformatter()
    counter = itertools.count()
    with closing(_frames(path, segment)) as frames:
        for frame in frames:
            beat()
            identity = frame.pts if info.timestamps else next(counter)
            if identity is None or frame.is_corrupt:
                continue
            if (position := wanted.pop(identity, None)) is not None:
                yield position, _to_rgb(frame, Orientation.of(frame), size, scaler)
            if identity >= ids[-1]:
                return


def _read_images(
    path: str, info: VideoInfo, segment: Segment, size: tuple[int, int]
) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    names = list_images(path)
    for position, frame in enumerate(segment.frames.tolist()):
        if frame >= len(names):
            return
        with open_image(os.path.join(path, names[frame])) as (image, orientation):
            height, width = orientation.shown(image.height, image.width)
            if (height, width) != (info.height, info.width):
                raise VideoError(f"{names[frame]}: is {width}x{height}, the first image {info.width}x{info.height}")
            rgb = _to_rgb(image, orientation, size, VideoReformatter())
        yield position, rgb


def _to_rgb(
    frame: av.VideoFrame, orientation: Orientation, size: tuple[int, int], scaler: VideoReformatter
) -> UInt8[np.ndarray, "h w 3"]:
    """Resizes, averaging over all covered pixels, and turns upright."""
    height, width = orientation.shown(*size)
    rgb = scaler.reformat(
        frame, width=width, height=height, format="rgb24", interpolation=Interpolation.BILINEAR, threads=1
    )
    return orientation.apply(rgb.to_ndarray())


def _frames(path: str, segment: Segment) -> Generator[av.VideoFrame]:
    """Yields decoded frames from the segment's key frame on; reads from the start if seeking misses the key frame."""
    for seek in (segment.seek, None) if segment.start_pts is not None else (None,):
        with open_video(path) as (container, stream):
            if seek is not None:
                with suppress(av.error.FFmpegError):
                    container.seek(seek, stream=stream)
            packets = demux(container, stream)
            if segment.start_pts is not None:
                packets = itertools.dropwhile(lambda packet: packet.pts != segment.start_pts, packets)
            reached = False
            for packet in packets:
                reached = True
                yield from decode_packet(stream, packet)
            if reached:
                yield from decode_packet(stream, None)
                return
