"""The frames of one file for `openvis_model.VideoSegmenter`, decoded as labelling decodes them."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from openvis_model.video_frames import Frames
from pipelines.video.decode import decode
from pipelines.video.index import plan_video
from pipelines.video.options import Sampling


def read_frames(
    path: str,
    working_size: Callable[[int, int], tuple[int, int]] | None = None,
    *,
    sampling: Sampling | None = None,
    batch_size: int = 8,
) -> Iterator[Frames]:
    """Yields the frames of a video in batches, with their indices and the video's own size.

    Args:
        path: local file, or folder of frame images.
        working_size: gives the height and width to resize to while decoding, pixels, from those of the video; the own
            size if None. With `VideoSegmenter.working_size` pixels are exactly those that labelling passes to the
            model, and a large video is decoded faster.
        sampling: which frames are kept; all if None.
        batch_size: frames per batch; the last one may have fewer.

    Raises:
        VideoError: the video cannot be read, with the reason.
    """
    plan = plan_video(path, sampling or Sampling(), None)
    own = (plan.info.height, plan.info.width)
    size = working_size(*own) if working_size else own
    for segment in plan.segments:
        for batch in decode(path, plan.info, segment, size=size, batch_size=batch_size):
            yield Frames(pixels=batch.frames, index=batch.frame, size=own)


def pick_frames(path: str, frames: Collection[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "H W 3"]]]:
    """Yields some frames of a video with their indices, in order; reads no segment that has none of them.

    Frames that cannot be decoded are left out.

    Args:
        path: local file, or folder of frame images.
        frames: indices in the video.

    Raises:
        VideoError: the video cannot be read, with the reason.
    """
    plan = plan_video(path, Sampling(), 1)
    for segment in plan.segments:
        found = np.isin(segment.frames, list(frames))
        if found.any():
            cut = {name: getattr(segment, name)[found] for name in ("frames", "times_s", "pts")}
            for batch in decode(path, plan.info, replace(segment, **cut), size=None, batch_size=1):
                yield int(batch.frame[0]), batch.frames[0]
