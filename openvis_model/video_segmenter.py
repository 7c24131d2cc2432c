"""The front door: a model, a vocabulary and the tracking of a video in one object."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import UInt8

from openvis_model.exemplars import PictureExemplar
from openvis_model.frame_model import FrameModel
from openvis_model.frame_result import FrameResult
from openvis_model.instances import Instances
from openvis_model.options import SIZE_DIVISOR, Shots, VideoTrackerConfig
from openvis_model.picture_encoder import PictureEncoder
from openvis_model.shots import sample, thumbnails
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.track import Track
from openvis_model.video_frames import Frames, VideoSource, batches
from openvis_model.video_state import VideoState, read_state, write_state
from openvis_model.video_tracker import NO_TRACK, VideoTracker
from openvis_model.video_tracking import VideoTracking
from openvis_model.vocabulary import Vocabulary
from openvis_model.working_size import working_size


class VideoSegmenter:
    """Segments, tracks and names objects, frame by frame, with names that are chosen at run time.

    Videos may have any length: memory grows with the objects in sight, and by about 3 kB with each track that ends.
    With the same settings, tracks are those of the job `jobs.label`, if frames are decoded at `working_size` as
    `pipelines.video.frames.read_frames` does; larger frames are resized by the model, with another filter.

        segmenter = VideoSegmenter(model, ["red star", ("blue disc", "blue circle")])
        for frame in segmenter.track(frames):
            print(frame.index, frame.track_ids, frame.categories)
        for track in segmenter.finish():
            print(track.track_id, track.category, track.score)

    One segmenter serves many videos, one after the other: `finish` ends a video, and the next frame begins another one.

    Args:
        model: what `openvis.load` returns, or an `InstFormer` in eval mode; on any device.
        names: what to look for: a `Vocabulary`, or a sequence of categories. A category is a line of a vocabulary file,
            with a name, synonyms separated by commas, or exemplars (`mug: mug_1.jpg, mug_2.jpg`), or a sequence of
            synonyms. The first synonym is the one shown.
        tracker: when tracks begin and end.
        objectness_floor: proposals below are neither embedded nor tracked. None is 0.5, as for `jobs.label`, or the
            tracker's threshold if that is lower.
        top: how many categories a track lists.
        shots: whether tracks end where the video is cut (`cuts`, as for `jobs.label`), or go on (`none`).
        batch_size: most frames that go through the model together; 1 for the lowest latency on a live stream.

    Raises:
        ValueError: for names that are empty, stand twice or cannot be read by the text encoder, for pictures that
            cannot be read, or for a setting that is out of range.
    """

    def __init__(
        self,
        model: FrameModel,
        names: Vocabulary | Sequence[str | Sequence[str]],
        *,
        tracker: VideoTrackerConfig | None = None,
        objectness_floor: float | None = None,
        top: int = 5,
        shots: Shots = "cuts",
        batch_size: int = 8,
    ) -> None:
        tracker = tracker or VideoTrackerConfig()
        if objectness_floor is not None and not 0 <= objectness_floor <= tracker.objectness_threshold:
            raise ValueError(
                f"objectness_floor: expected 0 to the tracker's objectness_threshold ({tracker.objectness_threshold}), "
                f"got {objectness_floor}; lower it or raise the threshold"
            )
        if shots not in get_args(Shots):
            raise ValueError(f"shots: unknown value {shots!r}; choose from {get_args(Shots)}")
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        self.model = model
        self.vocabulary = _vocabulary(names)
        if any(isinstance(each, PictureExemplar) and each.content is None for each in self.vocabulary.shown):
            from openvis_model.pictures import read_pictures

            self.vocabulary = read_pictures(self.vocabulary)
        self.objectness_floor = min(0.5, tracker.objectness_threshold) if objectness_floor is None else objectness_floor
        self.shots = shots
        self.batch_size = batch_size
        pictures = partial(PictureEncoder, model.classifier, short_side=model.short_side)
        embedding = embed_vocabulary(self.vocabulary, model.text_encoder, pictures, reference=True)
        self._tracking = VideoTracking(VideoTracker(tracker, embedding, model.rollout_tracker, top=top))
        self._size: tuple[int, int] | None = None
        self._ended: list[Track] = []

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns height and width at which the networks see frames of this size, pixels."""
        return working_size(height, width, short_side=self.model.short_side, divisor=SIZE_DIVISOR)

    def track(self, frames: VideoSource) -> Iterator[FrameResult]:
        """Segments further frames of the video and yields the result of each.

        A video may be passed in one call or in several. Frames go through the model in batches; a frame counts as taken
        in, and `state` includes it, when its result is yielded.

        Args:
            frames: RGB, uint8: an array or tensor [T, H, W, 3], or an iterable of frames [H, W, 3], of batches
                [T, H, W, 3], or of `Frames`. Iterables are read as results are asked for.

        Yields:
            One result per frame, in their order.

        Raises:
            ValueError: for frames of another type or shape, of another size than those before, out of order, or if the
                video has none.
        """
        return self._track(batches(frames, self.batch_size))

    def finish(self) -> list[Track]:
        """Ends the video and returns all its tracks in the order of their ids; the next frame begins another video.

        Raises:
            ValueError: no frame was taken in since the last video was finished.
        """
        if self._size is None:
            raise ValueError(
                "finish: no frame was taken in since the last finish(); results of track(...) must be iterated over"
            )
        tracks = sorted(self._ended + self._tracking.finish(), key=lambda track: track.track_id)
        self.state = VideoState()
        return tracks

    @property
    def state(self) -> VideoState:
        """State of the video after the last result; set it to resume there, or to `VideoState()` to drop the video."""
        return VideoState(self._tracking.state, self._size, tuple(self._ended), self._tracking.shots)

    @state.setter
    def state(self, state: VideoState) -> None:
        self._tracking.state, self._tracking.shots = state.tracker, state.shots
        self._size, self._ended = state.size, list(state.ended)

    def save(self, path: str | Path) -> None:
        """Writes the state to a safetensors file, which is replaced whole or not at all."""
        write_state(self.state, path, self._owner)

    def resume(self, path: str | Path) -> int:
        """Resumes the video of a file that `save` wrote, in this process or another one.

        A video that is interrupted between two batches and resumed gives exactly the same results; within a batch, the
        model's rounding may differ, as the remaining frames go through it without the others.

        Returns:
            The index of the last frame taken in; the frame after it comes next.

        Raises:
            ValueError: names the file: it cannot be read, is damaged, or was saved with another model, vocabulary or
                settings.
        """
        self.state = read_state(path, self._owner, self.vocabulary.names)
        return self.state.tracker.frame

    @cached_property
    def _owner(self) -> dict[str, str]:
        """What a saved state belongs to; hashing the weights of the paper's model takes a second."""
        tracker = self._tracking.tracker
        settings = [tracker.config.identity(), tracker.top, self.objectness_floor, self.shots]
        parts = {"model": self.model.identity(), "vocabulary": self.vocabulary.identity, "setting": settings}
        return {name: hashlib.sha256(json.dumps(part).encode()).hexdigest() for name, part in parts.items()}

    def _track(self, source: Iterator[Frames]) -> Iterator[FrameResult]:
        for batch in source:
            index = self._indices(batch)
            size = self._check_size(batch, index[0])
            found = self.model(batch.pixels, objectness_floor=self.objectness_floor, frame_size=size)
            for frame, instances, thumbnail in zip(index, found, self._thumbnails(batch), strict=True):
                self._size = size
                yield self._result(frame, instances, thumbnail)
        if self._size is None:
            raise ValueError("frames: the video has none; check that its file was found and can be decoded")

    def _thumbnails(self, batch: Frames) -> Sequence[UInt8[np.ndarray, "32 32 3"] | None]:
        if self.shots == "none":
            return [None] * len(batch)
        seen = sample(batch.pixels)
        return list(thumbnails(seen if isinstance(seen, np.ndarray) else seen.cpu().numpy()))

    def _indices(self, batch: Frames) -> list[int]:
        last = self._tracking.state.frame
        if batch.index is None:
            return list(range(last + 1, last + 1 + len(batch)))
        index = [int(frame) for frame in batch.index]
        if (np.diff([last, *index]) <= 0).any():
            raise ValueError(
                f"frames.index: expected ascending indices after {last}, got {index}; call finish() before the next "
                "video"
            )
        return index

    def _check_size(self, batch: Frames, frame: int) -> tuple[int, int]:
        size = batch.size or (batch.pixels.shape[1], batch.pixels.shape[2])
        if self._size not in (None, size):
            raise ValueError(
                f"frames: frame {frame} has height and width {size}, the frames before it {self._size}; resize it, or "
                "call finish() before the next video"
            )
        return size

    def _result(self, frame: int, instances: Instances, thumbnail: UInt8[np.ndarray, "32 32 3"] | None) -> FrameResult:
        tracked = self._tracking.add(frame, instances, thumbnail)
        self._ended += tracked.ended
        order = tracked.track_ids.argsort(kind="stable")
        order = order[tracked.track_ids[order] != NO_TRACK]
        track_ids = tracked.track_ids[order]
        tracks = self._tracking.tracks_so_far(track_ids)
        return FrameResult(
            index=frame,
            track_ids=track_ids,
            categories=tuple(track.category for track in tracks),
            category_ids=np.array([track.top[0].category_id for track in tracks], dtype=np.int64),
            scores=np.array([track.score for track in tracks], dtype=np.float32),
            objectness=instances.objectness.numpy()[order],
            masks=instances.masks.take(order),
            ended=tuple(tracked.ended),
            begins_shot=tracked.begins_shot,
        )


def _vocabulary(names: Vocabulary | Sequence[str | Sequence[str]]) -> Vocabulary:
    if isinstance(names, Vocabulary):
        return names
    if isinstance(names, str):
        raise ValueError(
            f"names: expected a sequence of categories, got the text {names[:60]!r}; write [{names[:60]!r}]"
        )
    return Vocabulary.listed(names)
