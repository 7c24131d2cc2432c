"""Video AP during a training: labels a few videos with the model in memory, and scores them."""

import heapq
from collections.abc import Iterable, Iterator

import torch.distributed as dist

from openvis_model.inst_former import InstFormer
from openvis_model.track import Track
from openvis_model.video_segmenter import VideoSegmenter
from openvis_model.vocabulary import Vocabulary
from pipelines.datasets import ytvis
from pipelines.datasets.annotations import GroundTruth, Mask, PredictedTrack
from pipelines.datasets.benchmark_videos import BenchmarkVideo, category_ids, find_benchmark_videos
from pipelines.evaluation.benchmarks import BENCHMARKS
from pipelines.evaluation.score import score_tracks
from pipelines.evaluation.tracking import benchmark_tracker
from pipelines.training.stage_config import ValidationConfig
from pipelines.video.frames import read_frames

TOP_K = BENCHMARKS["ytvis"].top_k
"""Predictions per video."""

_REPORTED = ("AP", "AP50", "AR10")


class Validation:
    """A validation set whose annotations are read and whose videos exist.

    Args:
        config: the set.

    Raises:
        ValueError: for annotations that cannot be read, or missing videos.
    """

    def __init__(self, config: ValidationConfig) -> None:
        truth = ytvis.read_ground_truth(config.annotations, strict=True)
        truth.check_annotated()
        videos = truth.videos[: config.most_videos]
        ids = {video.id for video in videos}
        tracks = tuple(track for track in truth.tracks if track.video_id in ids)
        self.config = config
        self.truth = GroundTruth(
            path=truth.path, sha256=truth.sha256, videos=videos, categories=truth.categories, tracks=tracks
        )
        self.category_ids = category_ids(truth.categories)
        self.videos = find_benchmark_videos(videos, config.videos or config.annotations.rpartition("/")[0])

    def __call__(self, model: InstFormer, *, rank: int = 0, world_size: int = 1) -> dict[str, float]:
        """Labels and scores the videos; each worker labels its share, and the worker of rank 0 scores.

        Args:
            model: in training or eval mode, in which it also returns.
            rank: of this worker.
            world_size: number of workers, all of which must call.

        Returns:
            AP, AP50 and AR10 as fractions; empty on other workers.
        """
        training = model.training
        model.eval()
        segmenter = self.segmenter(model)
        predicted = [track for video in self.videos[rank::world_size] for track in self.predict(segmenter, video)]
        model.train(training)
        if world_size > 1:
            shares: list[list[PredictedTrack]] = [[] for _ in range(world_size)]
            dist.all_gather_object(shares, predicted)
            predicted = [track for share in shares for track in share]
        if rank:
            return {}
        numbers, _ = score_tracks("ytvis", self.truth, predicted)
        return {name: numbers[name] for name in _REPORTED}

    def segmenter(self, model: InstFormer) -> VideoSegmenter:
        """Returns a segmenter that keeps all instances of all frames, as benchmarks do; the model is in eval mode."""
        settings, names = (
            benchmark_tracker(self.config.association, self.videos),
            Vocabulary.of_dataset(self.category_ids),
        )
        return VideoSegmenter(model, names, tracker=settings, top=TOP_K, shots="none")

    def predict(self, segmenter: VideoSegmenter, video: BenchmarkVideo) -> list[PredictedTrack]:
        """Returns the `TOP_K` best pairs of track and category of one video, best first."""
        masks: dict[int, list[Mask | None]] = {}
        for frame in segmenter.track(read_frames(video.uri, segmenter.working_size)):
            if frame.index in video.positions:
                height, width = frame.masks.size
                for track_id, counts in zip(frame.track_ids.tolist(), frame.masks.counts, strict=True):
                    row = masks.setdefault(track_id, [None] * video.length)
                    row[video.positions[frame.index]] = Mask(height, width, counts)
        pairs = heapq.nlargest(TOP_K, _pairs(segmenter.finish()), key=lambda pair: pair[0])
        categories = list(self.category_ids.values())
        return [
            PredictedTrack(
                video_id=video.id, category_id=categories[category], score=score, masks=tuple(masks[track_id])
            )
            for score, track_id, category in pairs
            if track_id in masks
        ]


def _pairs(tracks: Iterable[Track]) -> Iterator[tuple[float, int, int]]:
    """Yields score, track id and category index."""
    return ((best.score, track.track_id, best.category_id) for track in tracks for best in track.top)
