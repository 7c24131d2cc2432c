"""The end of the labelling pipeline: batches are tracked in order and written, video by video.

`TrackSink` hands every batch to the actor that owns its video; `VideoWriter` puts the batches of one video back into
order, rolls the tracker over them and writes the video's part of the output.
"""

import pickle
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.actor import ActorHandle
from ray.data import Datasink
from ray.data.block import Block, BlockAccessor

from openvis_model.instances import Instances
from openvis_model.rollout_tracker import RolloutTracker
from openvis_model.video_tracker import NO_TRACK, Track, TrackerState, VideoTracker, VideoTrackerConfig
from openvis_model.vocabulary import VocabularyEmbedding
from pipelines.results import Part, Results
from pipelines.storage import Storage
from pipelines.video_index import VideoInfo

TOP = 5
"""Categories listed for a track, the best one included."""


@dataclass(frozen=True, kw_only=True)
class LabelledBatch:
    """What the model made of consecutive frames of one video.

    Attributes:
        video_id: the video.
        uri: where it is.
        segment: which segment of the video the frames are from.
        batch: which batch of the segment.
        last_batch: whether it ends its segment.
        segments: number of segments of the video.
        expected_frames: frames that the whole video should give.
        info: what the file's index says.
        frame: index in the file of each frame.
        time_s: time of each frame, seconds.
        instances: instances of each frame.
        model_s: time that the model took, seconds.
        error: why the video failed; it then has no further batches that count.
    """

    video_id: str
    uri: str
    segment: int = 0
    batch: int = 0
    last_batch: bool = True
    segments: int = 1
    expected_frames: int = 0
    info: VideoInfo | None = None
    frame: tuple[int, ...] = ()
    time_s: tuple[float, ...] = ()
    instances: tuple[Instances, ...] = ()
    model_s: float = 0.0
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """Under which model, vocabulary and settings a video was labelled; columns of the `videos` table."""

    model_fingerprint: str
    vocabulary_fingerprint: str
    config_fingerprint: str


class VideoWriter:
    """One video on its way into the output. Batches that come early wait on the disk, so that memory stays flat.

    Args:
        video_id: the video, and the name of its part.
        uri: where it is.
        tracker: shared by all videos.
        results: the output.
        fingerprints: recorded with the video.
    """

    def __init__(
        self, video_id: str, uri: str, tracker: VideoTracker, results: Results, fingerprints: Fingerprints
    ) -> None:
        self.video_id, self.uri = video_id, uri
        self.tracker, self.fingerprints = tracker, fingerprints
        self.part: Part = results.part(video_id)
        self.state = TrackerState()
        self.next = (0, 0)
        self.waiting: dict[tuple[int, int], Path] = {}
        self.frames = self.tracks = 0
        self.model_s = self.tracker_s = 0.0

    def add(self, batch: LabelledBatch) -> str | None:
        """Takes a batch in; returns "ok" or "failed" once the video is committed."""
        if batch.error:
            return self._commit(batch, "failed", batch.error)
        if (batch.segment, batch.batch) != self.next:
            self._put_aside(batch)
            return None
        ready: LabelledBatch | None = batch
        while ready:
            start = time.perf_counter()
            self._track(ready)
            self.tracker_s += time.perf_counter() - start
            self.next = (ready.segment + 1, 0) if ready.last_batch else (ready.segment, ready.batch + 1)
            if self.next[0] == ready.segments:
                return self._commit(ready, "ok" if self.frames else "failed", self._doubt(ready))
            ready = self._take_up()
        return None

    def _put_aside(self, batch: LabelledBatch) -> None:
        path = self.part.folder / f"batch-{batch.segment}-{batch.batch}"
        path.write_bytes(pickle.dumps(batch))
        self.waiting[batch.segment, batch.batch] = path

    def _take_up(self) -> LabelledBatch | None:
        """The next batch, if it has come already."""
        path = self.waiting.pop(self.next, None)
        if path is None:
            return None
        batch: LabelledBatch = pickle.loads(path.read_bytes())  # noqa: S301 - written by ourselves
        path.unlink()
        return batch

    def _doubt(self, batch: LabelledBatch) -> str | None:
        """What is missing of a video that was read to its end."""
        doubts = []
        if batch.info and batch.info.missing_frames:
            doubts.append(f"cut off: about {batch.info.missing_frames} frames that its header promises are not there")
        if lost := batch.expected_frames - self.frames:
            doubts.append(f"{lost} of {batch.expected_frames} frames could not be decoded")
        return "; ".join(doubts) or None

    def _track(self, batch: LabelledBatch) -> None:
        rows: list[dict[str, Any]] = []
        for frame, time_s, instances in zip(batch.frame, batch.time_s, batch.instances, strict=True):
            self.state, tracked = self.tracker.step(self.state, frame, instances)
            rows += mask_rows(self.video_id, frame, time_s, instances, tracked.track_ids)
            self._add_tracks(tracked.ended)
            self.frames += 1
        self.model_s += batch.model_s
        self.part.add("masks", rows)

    def _add_tracks(self, tracks: list[Track]) -> None:
        names = self.tracker.vocabulary.names
        self.part.add("tracks", [track_row(self.video_id, track, names) for track in tracks])
        self.tracks += len(tracks)

    def _commit(self, batch: LabelledBatch, status: str, error: str | None) -> str:
        if status == "failed":
            self.part.discard()
            self.part = Part(self.part.storage, self.part.name)
            self.tracks = 0
        else:
            self._add_tracks(self.tracker.finish(self.state)[1])
        info = batch.info
        self.part.add(
            "videos",
            [
                {
                    "video_id": self.video_id,
                    "uri": self.uri,
                    "status": status,
                    "error": error,
                    "frames": self.frames,
                    "expected_frames": batch.expected_frames,
                    "fps": info and info.fps,
                    "width": info and info.width,
                    "height": info and info.height,
                    "duration_s": info and info.duration_s,
                    "tracks": self.tracks,
                    "model_s": self.model_s,
                    "tracker_s": self.tracker_s,
                    **vars(self.fingerprints),
                }
            ],
        )
        self.part.commit()
        return status


def mask_rows(
    video_id: str, frame: int, time_s: float, instances: Instances, track_ids: np.ndarray
) -> list[dict[str, Any]]:
    """Rows of the `masks` table for the tracked instances of one frame, in the order of their tracks."""
    masks = instances.masks
    rows = []
    for i in np.argsort(track_ids, kind="stable"):
        if track_ids[i] != NO_TRACK:
            x, y, width, height = masks.boxes[i].tolist()
            rows.append(
                {
                    "video_id": video_id,
                    "track_id": int(track_ids[i]),
                    "frame": frame,
                    "time_s": time_s,
                    "x": x,
                    "y": y,
                    "width": width,
                    "height": height,
                    "area": int(masks.areas[i]),
                    "score": float(instances.objectness[i]),
                    "rle": {"size": list(masks.size), "counts": masks.counts[i].decode("ascii")},
                }
            )
    return rows


def track_row(video_id: str, track: Track, names: tuple[str, ...]) -> dict[str, Any]:
    """The row of the `tracks` table for a finished track."""
    top = [{"category": names[category], "score": score} for category, score in track.top(TOP)]
    return {
        "video_id": video_id,
        "track_id": track.track_id,
        "category": top[0]["category"],
        "score": top[0]["score"],
        "top": top,
        "first_frame": track.first_frame,
        "last_frame": track.last_frame,
        "frames": track.frames,
        "embedding": track.embedding.tolist(),
    }


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the videos of a tracker actor, or of all, have come."""

    ok: int = 0
    failed: int = 0
    frames: int = 0
    tracks: int = 0

    def __add__(self, other: "Progress") -> "Progress":
        return Progress(**{name: value + getattr(other, name) for name, value in vars(self).items()})


class TrackerActor:
    """Owns the videos that hash to it, and their state."""

    def __init__(
        self,
        config: VideoTrackerConfig,
        vocabulary: VocabularyEmbedding,
        rollout_tracker: RolloutTracker | None,
        output: str,
        fingerprints: Fingerprints,
    ) -> None:
        torch.set_num_threads(1)
        self.tracker = VideoTracker(config, vocabulary, rollout_tracker)
        self.results = Results(Storage(output))
        self.fingerprints = fingerprints
        self.writers: dict[str, VideoWriter] = {}
        self.done: set[str] = set()
        self.count = Progress()

    def add(self, batches: list[bytes]) -> None:
        """Takes in labelled batches in any order; those of a video that is done are left aside."""
        for data in batches:
            batch: LabelledBatch = pickle.loads(data)  # noqa: S301 - from our own model actors
            if batch.video_id not in self.done:
                self._add(batch)

    def _add(self, batch: LabelledBatch) -> None:
        writer = self.writers.get(batch.video_id)
        if writer is None:
            writer = VideoWriter(batch.video_id, batch.uri, self.tracker, self.results, self.fingerprints)
            self.writers[batch.video_id] = writer
        tracks = writer.tracks
        try:
            status = writer.add(batch)
        except Exception as error:  # a failure of one video never stops the others
            status = writer.add(replace(batch, error=f"tracking failed: {error!r}"))
        self.count += Progress(frames=len(batch.frame), tracks=writer.tracks - tracks)
        if status:
            self.count += Progress(ok=int(status == "ok"), failed=int(status == "failed"))
            self.done.add(batch.video_id)
            del self.writers[batch.video_id]

    def progress(self) -> Progress:
        """Counts so far."""
        return self.count


class TrackSink(Datasink[None]):
    """Hands each row's labelled batch to the tracker actor that owns its video, and waits until it is taken in.

    Args:
        trackers: the tracker actors.
    """

    def __init__(self, trackers: list["ActorHandle[TrackerActor]"]) -> None:
        self.trackers = trackers

    def write(self, blocks: Iterable[Block], ctx: Any) -> None:
        """Called by Ray Data in a task for each bundle of blocks."""
        for block in blocks:
            rows: list[Mapping[str, Any]] = list(BlockAccessor.for_block(block).iter_rows(public_row_format=True))
            by_tracker: dict[int, list[bytes]] = {}
            for row in rows:
                owner = zlib.crc32(row["video_id"].encode()) % len(self.trackers)
                by_tracker.setdefault(owner, []).append(row["labelled"])
            ray.get([self.trackers[owner].add.remote(batches) for owner, batches in by_tracker.items()])
