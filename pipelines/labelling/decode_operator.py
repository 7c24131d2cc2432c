"""The first operators of the labelling pipeline, on CPUs: videos to segments, segments to batches of frames.

This module never imports torch: a worker that decodes starts in a second and takes a fifth of the memory.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain

import pyarrow as pa

from openvis_model.options import Shots
from openvis_model.shots import thumbnails
from openvis_model.working_size import working_size
from pipelines.cluster.nodes import node_id
from pipelines.labelling import decoder_process
from pipelines.labelling.rows import BatchRow, SegmentRow, pack_load, unpack_load
from pipelines.video.download_cache import DownloadCache, is_downloaded
from pipelines.video.isolation import isolated
from pipelines.video.options import Limits, Sampling
from pipelines.video.plan import MachineError, VideoError

LOAD_FRAMES = 256
"""Frames that short videos in one load have together at most: a task then decodes about as many as of a long video."""


class Plan:
    """Turns rows of `Video` into loads of segments, each for one task of `Decode`.

    Args:
        sampling: which frames are kept.
        segment_frames: frames after which a video may be cut.
        cache: has local copies of remote videos.
        limits: what reading one video's index may take.
    """

    def __init__(self, sampling: Sampling, segment_frames: int | None, cache: DownloadCache, limits: Limits) -> None:
        self.sampling = sampling
        self.segment_frames = segment_frames
        self.cache = cache
        self.limits = limits

    def __call__(self, videos: pa.Table) -> Iterator[pa.Table]:
        """Yields tables of `LOAD`; a video that cannot be planned is one `SegmentRow` with the error."""
        # As many frames as a segment may have, so that no load has two segments that one video was cut into.
        most = min(self.segment_frames or LOAD_FRAMES, LOAD_FRAMES)
        load: list[SegmentRow] = []
        for segment in chain.from_iterable(map(self.segments, videos.to_pylist())):
            if load and sum(len(row.kept_frame) for row in (*load, segment)) > most:
                yield pack_load(load)
                load = []
            load.append(segment)
        yield pack_load(load)

    def segments(self, video: Mapping[str, str]) -> Iterator[SegmentRow]:
        """Yields the segments of one video, or its error."""
        row = SegmentRow(video_id=video["video_id"], uri=video["uri"], node=node_id())
        try:
            row = replace(row, version=video["version"] or self.cache.version(row.uri))
            with self.cache.open(row.uri, row.version) as path, isolated(self.limits) as process:
                (plan,) = process.run(
                    decoder_process.plan, path, self.sampling, self.segment_frames, kinds=decoder_process.KINDS
                )
        except (VideoError, MachineError) as error:
            yield replace(row, error=str(error), lost=_is_lost(row.uri, error))
            return
        expected = sum(len(segment.frames) for segment in plan.segments)
        row = replace(row, info=plan.info, expected_frames=expected, segments=len(plan.segments))
        for segment in plan.segments:
            yield SegmentRow.of(row, segment)


class Decode:
    """Turns loads of segments into rows of batches of frames.

    Args:
        short_side: the model's working size, pixels.
        divisor: both working sides are multiples of it.
        batch_size: frames per batch.
        cache: has local copies of remote videos.
        limits: what decoding one segment may take.
        shots: `cuts` adds what cuts are found by.
    """

    def __init__(
        self, short_side: int, divisor: int, batch_size: int, cache: DownloadCache, limits: Limits, shots: Shots
    ) -> None:
        self.short_side = short_side
        self.divisor = divisor
        self.batch_size = batch_size
        self.cache = cache
        self.limits = limits
        self.shots = shots

    def __call__(self, loads: pa.Table) -> Iterator[pa.Table]:
        """Yields the batches of all segments, each in a table of its own."""
        for row in unpack_load(loads):
            for batch in self.batches(row):
                yield batch.to_table()

    def batches(self, row: SegmentRow) -> Iterator[BatchRow]:
        """Yields the batches of a segment; one without frames if it has none, or has failed."""
        if (info := row.info) is None:
            yield row.to(BatchRow)
            return
        size = working_size(info.height, info.width, short_side=self.short_side, divisor=self.divisor)
        row = replace(row, node=node_id())
        try:
            with self.cache.open(row.uri, row.version) as path, isolated(self.limits) as process:
                batches = process.run(
                    decoder_process.batches,
                    path,
                    info,
                    row.to_segment(),
                    size,
                    self.batch_size,
                    kinds=decoder_process.KINDS,
                )
                held = row.to(BatchRow)  # until it is known whether another one follows
                for batch in batches:
                    if len(held.frames):
                        yield replace(held, last_batch=False)
                        held = replace(held, batch=held.batch + 1)
                    seen = thumbnails(batch.frames).tobytes() if self.shots == "cuts" else b""
                    held = replace(held, frame=batch.frame, time_s=batch.time_s, frames=batch.frames, thumbnails=seen)
                yield held
        except (VideoError, MachineError) as error:
            yield row.to(BatchRow, error=str(error), lost=_is_lost(row.uri, error))


def _is_lost(uri: str, error: Exception) -> bool:
    """Returns whether an error is the machine's, such as that it does not see a local video."""
    return isinstance(error, MachineError) or (not is_downloaded(uri) and not os.path.exists(uri))
