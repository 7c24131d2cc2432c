"""Video AP in the middle of a training, on a few videos, with the model in memory."""

import copy
import heapq
from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist

from openvis_model.inst_former import InstFormer
from openvis_model.options import VideoTrackerConfig
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.video_tracker import NO_TRACK, Track, TrackerState, VideoTracker
from openvis_model.vocabulary import Vocabulary
from pipelines.datasets import ytvis
from pipelines.datasets.annotations import GroundTruth, Mask, PredictedTrack
from pipelines.datasets.benchmark_videos import BenchmarkVideo, category_ids, find_benchmark_videos
from pipelines.evaluation.score import score_tracks
from pipelines.training.stage_config import ValidationConfig
from pipelines.video.decode import decode
from pipelines.video.index import plan_video
from pipelines.video.plan import Sampling

TOP_K = 10
"""Predictions per video, as on YouTube-VIS."""

_BATCH = 8
_SHOWN = ("AP", "AP50", "AR10")


class Validation:
    """A validation set that was read and found.

    Raises:
        ValueError: annotations that cannot be read, or videos that are not there.
    """

    def __init__(self, config: ValidationConfig) -> None:
        truth = ytvis.read_ground_truth(config.annotations, strict=True)
        videos = truth.videos[: config.most_videos]
        kept = {video.id for video in videos}
        tracks = tuple(track for track in truth.tracks if track.video_id in kept)
        self.config = config
        self.truth = GroundTruth(
            path=truth.path, sha256=truth.sha256, videos=videos, categories=truth.categories, tracks=tracks
        )
        self.ids = category_ids(truth.categories)
        self.videos = find_benchmark_videos(videos, config.videos or config.annotations.rpartition("/")[0])

    def __call__(self, model: InstFormer, *, rank: int = 0, world_size: int = 1) -> dict[str, float]:
        """AP, AP50 and AR10, fractions; every worker labels its share of the videos, the first one scores.

        Returns:
            The numbers; on other workers none.
        """
        training = model.training
        model.eval()
        tracker = self._tracker(model)
        found = [
            track for video in self.videos[rank::world_size] for track in self.predict(model, video, tracker=tracker)
        ]
        model.train(training)
        if world_size > 1:
            everyone: list[list[PredictedTrack]] = [[] for _ in range(world_size)]
            dist.all_gather_object(everyone, found)
            found = [track for its in everyone for track in its]
        if rank:
            return {}
        numbers, _ = score_tracks("ytvis", self.truth, found)
        return {name: numbers[name] for name in _SHOWN}

    def predict(
        self, model: InstFormer, video: BenchmarkVideo, *, tracker: VideoTracker | None = None
    ) -> list[PredictedTrack]:
        """The `TOP_K` best pairs of track and category of one video, by a model in eval mode."""
        tracker = tracker or self._tracker(model)
        plan = plan_video(video.uri, Sampling(), None)
        masks: dict[int, list[Mask | None]] = {}
        tracks: list[Track] = []
        state = TrackerState()
        for segment in plan.segments:
            for batch in decode(video.uri, plan.info, segment, size=None, batch_size=_BATCH):
                for frame, instances in zip(batch.frame.tolist(), model(torch.from_numpy(batch.frames)), strict=True):
                    state, tracked = tracker.step(state, frame, instances)
                    tracks += tracked.ended
                    for row, track in enumerate(tracked.track_ids.tolist()):
                        if track != NO_TRACK and frame in video.positions:
                            its = masks.setdefault(track, [None] * video.length)
                            height, width = instances.masks.size
                            its[video.positions[frame]] = Mask(height, width, instances.masks.counts[row])
        tracks += tracker.finish(state)[1]
        categories = list(self.ids.values())
        return [
            PredictedTrack(video_id=video.id, category_id=categories[category], score=score, masks=tuple(masks[track]))
            for score, track, category in heapq.nlargest(TOP_K, _pairs(tracks), key=lambda pair: pair[0])
            if track in masks
        ]

    def _tracker(self, model: InstFormer) -> VideoTracker:
        """Tracks as benchmarks do: all instances of all frames are kept."""
        settings = VideoTrackerConfig(
            association=self.config.association,
            objectness_threshold=0.0,
            max_gap=max(video.length for video in self.videos),
        )
        vocabulary = embed_vocabulary(Vocabulary.from_lines(self.ids), model.text_encoder)
        # Instances are on the CPU, wherever the model is.
        return VideoTracker(settings, vocabulary, copy.deepcopy(model.rollout_tracker).cpu())


def _pairs(tracks: Iterable[Track]) -> Iterator[tuple[float, int, int]]:
    return ((score, track.track_id, category) for track in tracks for category, score in track.top(TOP_K))
