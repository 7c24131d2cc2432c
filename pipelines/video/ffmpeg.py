"""Opens, demuxes and decodes files with FFmpeg through PyAV."""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from pipelines.video.orientation import Orientation
from pipelines.video.plan import MachineError, VideoError

if TYPE_CHECKING:
    VideoPacket = Packet[VideoStream]
else:
    VideoPacket = Packet  # generic in the stubs only

_OF_THE_MACHINE = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)

MAX_PIXELS = 1 << 26  # of one frame: twice 8K

# FFmpeg looks at the content, not the name: without a whitelist, a playlist named .mp4 could make it open any URL.
_ONLY_VIDEOS = {
    "protocol_whitelist": "file",
    "format_whitelist": "3g2,3gp,apng,asf,av1,avi,dv,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mp4,mpeg,mpegts,"
    "mpegvideo,mxf,nut,obu,ogg,webm,yuv4mpegpipe",
}
_ONLY_IMAGES = {"format_whitelist": "jpeg_pipe,png_pipe"}


@contextmanager
def open_video(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens a file and its video stream, with one decoding thread, since segments are decoded in parallel.

    Raises:
        VideoError: if the file is missing, empty, not a video, without a video stream, or its frames are too large.
    """
    try:
        size = os.stat(path).st_size
        if size == 0:
            raise VideoError("empty file (0 bytes)")
        container = av.open(path, "r", options=_ONLY_VIDEOS)
    except FileNotFoundError as error:
        raise VideoError("file not found") from error
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(_why_not(path, error)) from error
    with container:
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            sound = " (audio only)" if container.streams.audio else ""
            raise VideoError(f"no video stream{sound}")
        best = container.streams.best("video")
        stream = best if best in streams else streams[0]  # as ffmpeg chooses
        context = stream.codec_context
        if context is None:
            raise VideoError("no decoder for its codec")
        if not 0 < context.width * context.height <= MAX_PIXELS:
            limit = f"limit {MAX_PIXELS} pixels"
            reason = "frame size 0x0" if not context.width * context.height else "frame size too large"
            raise VideoError(f"{reason} ({context.width}x{context.height}, {limit})")
        context.thread_count = 1
        yield container, stream


def demux(container: InputContainer, stream: VideoStream) -> Iterator[VideoPacket]:
    """Yields the stream's packets up to the end, or to the last whole one before the point where the file is cut off.

    Of half a packet, some decoders make a frame whose other half is whatever was in memory, and call it sound.

    Raises:
        MachineError: the disk or the network that the file is on fails.
    """
    held = None
    try:
        for packet in container.demux(stream):
            if packet.size:
                if held is not None:
                    yield held
                held = packet
    except av.error.FFmpegError as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise MachineError(f"cannot be read here ({error.strerror})") from error
    if held is not None and not held.is_corrupt:
        yield held


def decode_packet(stream: VideoStream, packet: VideoPacket | None) -> list[av.VideoFrame]:
    """Decodes a packet; None flushes the decoder. A damaged packet gives no frames."""
    try:
        return stream.codec_context.decode(packet)
    except av.error.FFmpegError:
        return []


@contextmanager
def open_image(path: str) -> Iterator[tuple[av.VideoFrame, Orientation]]:
    """Provides the decoded frame of an image file, and how it is shown.

    Raises:
        VideoError: if the image cannot be read or processed, also in the body of the `with` statement.
    """
    try:
        # Passes the content: FFmpeg would read a % in the name as a pattern.
        content = io.BytesIO(Path(path).read_bytes())
        orientation = Orientation.of_image(content)
        content.seek(0)
        with av.open(content, "r", options=_ONLY_IMAGES) as container:
            # Otherwise the decoder fills what is missing of a file that was cut off, and calls it sound.
            container.streams.video[0].codec_context.options = {"err_detect": "explode"}
            yield next(container.decode(video=0)), orientation
    except (av.error.FFmpegError, OSError, IndexError, StopIteration) as error:
        raise VideoError(f"{os.path.basename(path)}: not an image that can be read") from error


def _why_not(path: str, error: Exception) -> str:
    """Explains why an existing file cannot be opened."""
    if isinstance(error, av.error.InvalidDataError):
        with open(path, "rb") as file:
            cut_off = file.read(8)[4:] == b"ftyp"
        return "its index (moov) is missing: the file was cut off" if cut_off else "not a video file"
    return f"cannot be opened ({getattr(error, 'strerror', error)})"
