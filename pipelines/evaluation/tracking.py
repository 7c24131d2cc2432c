"""How benchmarks track."""

from collections.abc import Sequence
from dataclasses import replace

from openvis_model.options import AssociationConfig, VideoTrackerConfig
from pipelines.datasets.benchmark_videos import BenchmarkVideo


def benchmark_tracker(association: AssociationConfig, videos: Sequence[BenchmarkVideo]) -> VideoTrackerConfig:
    """Returns a tracker that keeps all N instances of every frame and refuses no match, as MinVIS does.

    Scores rank predictions, so benchmarks drop nothing by a threshold, and no track ends before its video.

    Args:
        association: how instances are linked; its `min_similarity` is replaced.
        videos: the videos to track in.
    """
    return VideoTrackerConfig(
        association=replace(association, min_similarity=-1.0),
        objectness_threshold=0.0,
        max_gap=max(video.frames for video in videos),
    )
