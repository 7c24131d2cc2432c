"""From the labelling pipeline to the tracker actors: every batch goes to the actor that owns its video.

This module never imports torch, which only comes with an actor's writers: whoever holds a handle of an actor imports
the actor's class.
"""

import os
import uuid
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa
import ray
from ray.data import Datasink
from ray.data.block import Block, BlockAccessor

from pipelines.labelling.progress import Progress
from pipelines.labelling.prometheus import TrackerMetrics
from pipelines.labelling.rows import LabelledRow
from pipelines.video.download_cache import is_downloaded


@runtime_checkable
class Writer(Protocol):
    """Tracks and writes one video.

    Attributes:
        tracks: tracks that have ended so far.
        model_s: time that the model took so far, seconds.
        tracker_s: time that tracking took so far, seconds.
    """

    tracks: int
    model_s: float
    tracker_s: float

    def add(self, batch: LabelledRow) -> str | None:
        """Adds a batch, in any order; returns "ok" or "failed" once the video is finished."""

    def discard(self) -> None:
        """Deletes what was written of the video."""


@runtime_checkable
class Writers(Protocol):
    """Makes the writers of an actor; finished videos count once they are committed."""

    def new(self, video_id: str, uri: str) -> Writer:
        """Returns the writer of a video."""

    def sees_output(self) -> bool:
        """Returns whether this process sees the lease on the output."""

    def take(self, writer: Any, status: str) -> None:
        """Takes over a finished video."""

    def commit(self, *, due: bool = False) -> None:
        """Commits finished videos; with `due` only if their part is large or old enough."""

    def discard(self) -> None:
        """Drops finished videos that are not committed."""


@dataclass(frozen=True)
class Loss:
    """A video that a machine has failed to read.

    Attributes:
        node: Ray's id of the machine.
        reason: what went wrong.
    """

    node: str
    reason: str


class TrackerActor:
    """Owns the videos whose ids hash to it.

    An actor that Ray restarts after a crash knows nothing of its unfinished and uncommitted videos; a later pass of the
    run labels them again.

    Args:
        writers: this actor's own copy.
    """

    def __init__(self, writers: Writers) -> None:
        self.video_writers = writers
        self.life = uuid.uuid4().hex
        self.writers: dict[str, Writer] = {}
        self.done: set[str] = set()
        self.lost: dict[str, Loss] = {}
        self.sound: set[str] = set()
        self.count = Progress()
        self.metrics = TrackerMetrics(self.life)
        self.closed = self.draining = False

    def add(self, batches: pa.Table) -> None:
        """Adds labelled batches, in any order; ignores those of finished videos, and all of them after `close`.

        Args:
            batches: rows of `LabelledRow`.

        Raises:
            OSError: the output cannot be written to.
        """
        for batch in LabelledRow.from_table(batches):
            if not self.closed and (batch.video_id in self.writers or self._may_begin(batch.video_id)):
                self._add(batch)
        self.commit(due=True)
        self.metrics.set_open(len(self.writers))

    def _may_begin(self, video_id: str) -> bool:
        return video_id not in self.done and not self.draining

    def _add(self, batch: LabelledRow) -> None:
        # A file that is absent here as well has failed.
        if batch.lost and (is_downloaded(batch.uri) or os.path.exists(batch.uri)):
            self._lose(batch)
            return
        if not batch.error:
            self.sound.add(batch.node)
        writer = self.writers.get(batch.video_id)
        if writer is None:
            writer = self.video_writers.new(batch.video_id, batch.uri)
            self.writers[batch.video_id] = writer
        tracks, model_s, tracker_s = writer.tracks, writer.model_s, writer.tracker_s
        try:
            status = writer.add(batch)
        except OSError:  # this machine's disk is the cause, not the video
            raise
        except Exception as error:  # the failure of one video must not stop the others
            status = writer.add(replace(batch, error=f"tracking failed: {error!r}"))
        self.count += Progress(frames=len(batch.frame), tracks=writer.tracks - tracks)
        self.metrics.add(
            frames=len(batch.frame),
            tracks=writer.tracks - tracks,
            model_s=writer.model_s - model_s,
            tracker_s=writer.tracker_s - tracker_s,
        )
        if status:
            self.video_writers.take(self.writers.pop(batch.video_id), status)
            self.metrics.finish(status)
            self.count += Progress(ok=int(status == "ok"), failed=int(status == "failed"))
            self.done.add(batch.video_id)

    def _lose(self, batch: LabelledRow) -> None:
        """Drops a video that a machine has failed to read."""
        if writer := self.writers.pop(batch.video_id, None):
            writer.discard()
        self.lost[batch.video_id] = Loss(batch.node, str(batch.error))
        self.done.add(batch.video_id)

    def losses(self) -> tuple[dict[str, Loss], set[str]]:
        """Returns the videos that machines have failed to read, and the nodes that have read a video."""
        return self.lost, self.sound

    def sees_output(self) -> bool:
        """Returns whether this process sees the output that the run leased, not a folder of the same name."""
        return self.video_writers.sees_output()

    def progress(self) -> tuple[str, Progress]:
        """Returns the counts so far, and an id of this life of the actor, which a restart changes."""
        return self.life, self.count

    def drain(self) -> int:
        """Begins no further video; returns the number of unfinished ones."""
        self.draining = True
        return len(self.writers)

    def commit(self, *, due: bool = False) -> None:
        """Commits finished videos, as `Writers.commit`.

        Raises:
            OSError: the output cannot be written to.
        """
        if not self.closed:
            self.video_writers.commit(due=due)

    def close(self) -> None:
        """Drops everything that is not committed, and ignores batches from now on."""
        self.closed = True
        for writer in self.writers.values():
            writer.discard()
        self.writers.clear()
        self.video_writers.discard()


class TrackSink(Datasink[None]):
    """Hands each row to the tracker actor that owns its video, and waits until the actor has added it.

    Args:
        trackers: handles of `TrackerActor`s.
    """

    def __init__(self, trackers: list[Any]) -> None:
        self.trackers = trackers

    def write(self, blocks: Iterable[Block], ctx: Any) -> None:
        """Called by Ray Data in a task for each bundle of blocks, which are tables of `LabelledRow`s."""
        for block in blocks:
            table = BlockAccessor.for_block(block).to_arrow()
            if not table.num_rows:  # a task without output hands on an empty block, which has no columns
                continue
            rows: dict[int, list[int]] = {}
            for row, video_id in enumerate(table["video_id"].to_pylist()):
                rows.setdefault(zlib.crc32(video_id.encode()) % len(self.trackers), []).append(row)
            parts = {owner: table if len(rows) == 1 else table.take(indices) for owner, indices in rows.items()}
            ray.get([self.trackers[owner].add.remote(part) for owner, part in parts.items()])
