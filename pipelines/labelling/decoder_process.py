"""The functions that an isolated decoder runs.

A decoder imports this module to find them, so it must not lead to Ray, pyarrow, boto3 or torch.
"""

from collections.abc import Iterator

from pipelines.video.decode import FrameBatch, decode
from pipelines.video.index import plan_video
from pipelines.video.options import Sampling
from pipelines.video.plan import Segment, VideoInfo, VideoPlan

KINDS = (FrameBatch, Segment, VideoInfo, VideoPlan)
"""What the values of these functions are made of."""


def plan(path: str, sampling: Sampling, segment_frames: int | None) -> Iterator[VideoPlan]:
    """Yields the only plan of a video, as `plan_video`."""
    yield plan_video(path, sampling, segment_frames)


def batches(
    path: str, info: VideoInfo, segment: Segment, size: tuple[int, int], batch_size: int
) -> Iterator[FrameBatch]:
    """Yields the frames of a segment, as `decode`."""
    return decode(path, info, segment, size=size, batch_size=batch_size)
