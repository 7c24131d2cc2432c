"""The end of the labelling pipeline: puts the batches of a video back into order, tracks, and writes the tables."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from openvis_model.instances import Instances
from openvis_model.shots import GRID
from openvis_model.track import Track
from openvis_model.video_tracker import NO_TRACK, VideoTracker
from openvis_model.video_tracking import VideoTracking
from pipelines.archive.parts import PartWriter, Rows
from pipelines.archive.schemas import SCHEMAS, Fingerprints
from pipelines.labelling.instance_bytes import decode_instances
from pipelines.labelling.rows import LabelledRow
from pipelines.storage.lease import LEASE


class VideoWriter:
    """Tracks and writes one video. Batches that arrive early wait on disk, so that memory stays flat.

    Args:
        video_id: the video.
        uri: local path, URI in the cloud, or web address of the video.
        tracker: shared by all videos.
        fingerprints: recorded with the video.

    Attributes:
        rows: the video's rows of all three tables; complete once the video is finished.
        tracks: tracks that have ended so far.
        model_s: time that the model took so far, seconds.
        tracker_s: time that tracking took so far, seconds.
    """

    def __init__(self, video_id: str, uri: str, tracker: VideoTracker, fingerprints: Fingerprints) -> None:
        self.video_id, self.uri = video_id, uri
        self.tracking, self.fingerprints = VideoTracking(tracker), fingerprints
        self.rows = Rows()
        self.next = (0, 0)
        self.waiting: dict[tuple[int, int], Path] = {}
        self.shots = list[dict[str, Any]]()
        self.frames = self.tracks = 0
        self.model_s = self.tracker_s = 0.0

    def add(self, batch: LabelledRow) -> str | None:
        """Adds a batch, in any order; returns "ok" or "failed" once the video is finished."""
        if batch.error:
            return self._finish(batch, "failed", batch.error)
        if (batch.segment, batch.batch) != self.next:
            self._store(batch)
            return None
        ready: LabelledRow | None = batch
        while ready:
            start = time.perf_counter()
            self._track(ready)
            self.tracker_s += time.perf_counter() - start
            self.next = (ready.segment + 1, 0) if ready.last_batch else (ready.segment, ready.batch + 1)
            if self.next[0] == ready.segments:
                return self._finish(ready, "ok" if self.frames else "failed", incomplete(ready, self.frames))
            ready = self._load_next()
        return None

    def _store(self, batch: LabelledRow) -> None:
        path = self.rows.folder / f"batch-{batch.segment}-{batch.batch}"
        with path.open("wb") as file, pa.ipc.new_stream(file, batch.schema()) as stream:
            stream.write_table(batch.to_table())
        self.waiting[batch.segment, batch.batch] = path

    def _load_next(self) -> LabelledRow | None:
        """Returns the next batch if it has arrived already."""
        path = self.waiting.pop(self.next, None)
        if path is None:
            return None
        with path.open("rb") as file, pa.ipc.open_stream(file) as stream:
            (batch,) = LabelledRow.from_table(stream.read_all())
        path.unlink()
        return batch

    def _track(self, batch: LabelledRow) -> None:
        tracked: list[Tracked] = []
        thumbnails = np.frombuffer(batch.thumbnails, np.uint8).reshape(-1, GRID, GRID, 3)
        seen: list[Any] = list(thumbnails) or [None] * len(batch.frame)
        found = decode_instances(batch.instances)
        frames = zip(batch.frame.tolist(), batch.time_s.tolist(), found, seen, strict=True)
        for frame, time_s, instances, thumbnail in frames:
            result = self.tracking.add(frame, instances, thumbnail)
            if thumbnail is not None:
                extend_shots(self.shots, frame, time_s, begins=result.begins_shot)
            tracked.append(Tracked(frame, time_s, instances, result.track_ids))
            self._add_tracks(result.ended)
            self.frames += 1
        self.model_s += batch.model_s
        self.rows.add_table("masks", mask_rows(self.video_id, tracked))

    def _add_tracks(self, tracks: list[Track]) -> None:
        self.rows.add("tracks", [track_row(self.video_id, track) for track in tracks])
        self.tracks += len(tracks)

    def discard(self) -> None:
        """Deletes what was written of the video."""
        self.rows.discard()

    def _finish(self, batch: LabelledRow, status: str, error: str | None) -> str:
        if status == "failed":
            self.rows.discard()
            self.rows = Rows()
            self.shots = []
            self.tracks = self.frames = 0
        else:
            self._add_tracks(self.tracking.finish())
        row = video_row(
            batch,
            self.fingerprints,
            status=status,
            error=error,
            frames=self.frames,
            tracks=self.tracks,
            shots=self.shots,
            model_s=self.model_s,
            tracker_s=self.tracker_s,
        )
        self.rows.add("videos", [row])
        return status


class VideoWriters:
    """Makes the writers of a tracker actor, and commits their videos. Picklable until it has made one.

    Args:
        tracker: shared by all videos.
        parts: writes the rows of finished videos to the output.
        fingerprints: recorded with each video.
    """

    def __init__(self, tracker: VideoTracker, parts: PartWriter, fingerprints: Fingerprints) -> None:
        self.tracker, self.parts, self.fingerprints = tracker, parts, fingerprints

    def new(self, video_id: str, uri: str) -> VideoWriter:
        """Returns the writer of a video."""
        return VideoWriter(video_id, uri, self.tracker, self.fingerprints)

    def sees_output(self) -> bool:
        """Returns whether this process sees the lease on the output."""
        return self.parts.storage.exists(LEASE)

    def take(self, writer: VideoWriter, status: str) -> None:
        """Takes over the rows of a finished video, which counts once it is committed."""
        self.parts.add(writer.rows, status)

    def commit(self, *, due: bool = False) -> None:
        """Commits finished videos; with `due` only if their part is large or old enough."""
        if due:
            self.parts.commit_if_due()
        else:
            self.parts.commit()

    def discard(self) -> None:
        """Drops finished videos that are not committed."""
        self.parts.discard()


class Tracked(NamedTuple):
    """The instances of a frame, and the track of each."""

    frame: int
    time_s: float
    instances: Instances
    track_ids: Int[np.ndarray, " n"]


def mask_rows(video_id: str, frames: Sequence[Tracked]) -> pa.Table:
    """Returns the rows of the `masks` table for the tracked instances of frames of one video.

    Args:
        video_id: the video.
        frames: in order; within a frame, rows are sorted by track id.
    """
    orders = [np.argsort(each.track_ids, kind="stable") for each in frames]
    orders = [order[each.track_ids[order] != NO_TRACK] for order, each in zip(orders, frames, strict=True)]
    counts, schema = [len(order) for order in orders], SCHEMAS["masks"]
    if not sum(counts):
        return schema.empty_table()

    def column(values: Callable[[Tracked], np.ndarray]) -> np.ndarray:
        return np.concatenate([values(each)[order] for order, each in zip(orders, frames, strict=True)])

    boxes = column(lambda each: each.instances.masks.boxes)
    strings = [each.instances.masks.counts[i] for order, each in zip(orders, frames, strict=True) for i in order]
    sizes = [list(each.instances.masks.size) for each, count in zip(frames, counts, strict=True) for _ in range(count)]
    columns: dict[str, Any] = {
        "video_id": pa.repeat(video_id, sum(counts)),
        "track_id": column(lambda each: each.track_ids),
        "frame": np.repeat([each.frame for each in frames], counts),
        "time_s": np.repeat([each.time_s for each in frames], counts),
        **{name: boxes[:, i] for i, name in enumerate(("x", "y", "width", "height"))},
        "area": column(lambda each: each.instances.masks.areas),
        "score": column(lambda each: each.instances.objectness.numpy()),
        "rle": pa.StructArray.from_arrays(
            [pa.array(sizes, pa.list_(pa.int32())), pa.array(strings, pa.binary()).cast(pa.string())],
            fields=list(schema.field("rle").type),
        ),
    }
    return pa.table({name: pa.array(values) for name, values in columns.items()}).cast(schema)


def track_row(video_id: str, track: Track) -> dict[str, Any]:
    """Returns the row of the `tracks` table for a finished track."""
    return {
        "video_id": video_id,
        "track_id": track.track_id,
        "category": track.category,
        "score": track.score,
        "top": [{"category": best.category, "score": best.score} for best in track.top],
        "first_frame": track.first_frame,
        "last_frame": track.last_frame,
        "frames": track.frames,
        "objectness": track.objectness,
        "embedding": track.embedding.tolist(),
        "unknown": track.unknown,
        "colour": track.colour.tolist(),
    }


def extend_shots(shots: list[dict[str, Any]], frame: int, time_s: float, *, begins: bool) -> None:
    """Adds a frame to the last shot of a video, or begins another one."""
    if begins or not shots:
        shots.append({"first_frame": frame, "start_s": time_s})
    shots[-1] |= {"last_frame": frame, "end_s": time_s}


def incomplete(batch: LabelledRow, frames: int) -> str | None:
    """Returns what is missing from a video that was read to its end.

    Args:
        batch: any batch of the video.
        frames: number of frames that were read.
    """
    reasons = []
    if batch.info and batch.info.missing_frames:
        reasons.append(f"cut off: about {batch.info.missing_frames} frames that its header promises are missing")
    elif batch.info and batch.info.cut_off:
        reasons.append("cut off: its end is missing")
    if lost := batch.expected_frames - frames:
        reasons.append(f"{lost} of {batch.expected_frames} frames could not be decoded")
    return "; ".join(reasons) or None


def video_row(
    batch: LabelledRow,
    fingerprints: Fingerprints,
    *,
    status: str,
    error: str | None,
    frames: int,
    tracks: int,
    shots: list[dict[str, Any]],
    model_s: float,
    tracker_s: float,
) -> dict[str, Any]:
    """Returns the row of the `videos` table for a finished video; `batch` is any of its batches."""
    info = batch.info
    return {
        "video_id": batch.video_id,
        "uri": batch.uri,
        "status": status,
        "error": error,
        "frames": frames,
        "expected_frames": batch.expected_frames,
        "fps": info and info.fps,
        "width": info and info.width,
        "height": info and info.height,
        "duration_s": info and info.duration_s,
        "tracks": tracks,
        "shots": shots or None,
        "model_s": model_s,
        "tracker_s": tracker_s,
        **vars(fingerprints),
    }
