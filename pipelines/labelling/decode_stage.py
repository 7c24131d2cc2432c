"""The first stages of labelling, on CPUs: videos to segments, segments to batches of frames.

Without torch: a worker that decodes starts in a second and takes a fifth of the memory.
"""

import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from openvis_model.working_size import working_size
from pipelines.labelling.batch import LabelledBatch
from pipelines.video.decode import FrameBatch, decode
from pipelines.video.download_cache import DownloadCache
from pipelines.video.index import plan_video
from pipelines.video.isolation import Limits, isolated
from pipelines.video.plan import Sampling, Segment, VideoError, VideoInfo, VideoPlan


class Plan:
    """Rows of videos become rows of segments.

    Args:
        sampling: which frames are kept.
        segment_frames: frames after which a video may be cut.
        cache: where videos of S3 are opened.
        limits: of each video.
    """

    def __init__(self, sampling: Sampling, segment_frames: int | None, cache: DownloadCache, limits: Limits) -> None:
        self.sampling = sampling
        self.segment_frames = segment_frames
        self.cache = cache
        self.limits = limits

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """One row per segment, or one with the error."""
        head = LabelledBatch(video_id=row["video_id"], uri=row["uri"])
        try:
            head = replace(head, version=row["version"] or self.cache.version(head.uri))
            with self.cache.open(head.uri, head.version) as path, isolated(self.limits) as process:
                (plan,) = process.run(_plan, path, self.sampling, self.segment_frames)
        except VideoError as error:
            yield {"head": pickle.dumps(replace(head, error=str(error))), "segment": b""}
            return
        expected = sum(len(segment.frames) for segment in plan.segments)
        head = replace(head, info=plan.info, segments=len(plan.segments), expected_frames=expected)
        for segment in plan.segments:
            yield {"head": pickle.dumps(replace(head, segment=segment.index)), "segment": pickle.dumps(segment)}


class Decode:
    """Rows of segments become rows of batches of frames.

    Args:
        short_side: the model's working size, pixels.
        divisor: of both working sides.
        batch_size: frames per batch.
        cache: where videos of S3 are opened.
        limits: of each video.
    """

    def __init__(self, short_side: int, divisor: int, batch_size: int, cache: DownloadCache, limits: Limits) -> None:
        self.short_side = short_side
        self.divisor = divisor
        self.batch_size = batch_size
        self.cache = cache
        self.limits = limits

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """One row per batch; at least one per segment, without frames if there are none."""
        head: LabelledBatch = pickle.loads(row["head"])  # noqa: S301 - from our own tasks, as below
        empty = np.zeros((0, 1, 1, 3), np.uint8)
        if head.info is None:
            yield {"head": row["head"], "frames": empty}
            return
        size = working_size(head.info.height, head.info.width, short_side=self.short_side, divisor=self.divisor)
        try:
            with self.cache.open(head.uri, head.version) as path, isolated(self.limits) as process:
                segment = pickle.loads(row["segment"])  # noqa: S301
                batches = process.run(_decode, path, head.info, segment, size, self.batch_size)
                held, number = FrameBatch(frames=empty, frame=np.zeros(0, np.int64), time_s=np.zeros(0)), 0
                for batch in batches:
                    if len(held.frames):
                        yield self._row(head, held, number, last=False)
                        number += 1
                    held = batch
                yield self._row(head, held, number, last=True)
        except VideoError as error:
            yield {"head": pickle.dumps(replace(head, error=str(error))), "frames": empty}

    def _row(self, head: LabelledBatch, batch: FrameBatch, number: int, *, last: bool) -> dict[str, Any]:
        frame, time_s = tuple(batch.frame.tolist()), tuple(batch.time_s.tolist())
        head = replace(head, batch=number, last_batch=last, frame=frame, time_s=time_s)
        return {"head": pickle.dumps(head), "frames": batch.frames}


def _plan(path: str, sampling: Sampling, segment_frames: int | None) -> Iterator[VideoPlan]:
    yield plan_video(path, sampling, segment_frames)


def _decode(
    path: str, info: VideoInfo, segment: Segment, size: tuple[int, int], batch_size: int
) -> Iterator[FrameBatch]:
    return decode(path, info, segment, size=size, batch_size=batch_size)
