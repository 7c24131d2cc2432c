"""The way from the labelling pipeline to the tracker actors: every batch goes to the one that owns its video.

Without torch, which only comes with an actor's writers: whoever holds a handle of an actor imports its class.
"""

import pickle
import uuid
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import ray
from ray.data import Datasink
from ray.data.block import Block, BlockAccessor

from pipelines.labelling.batch import LabelledBatch
from pipelines.labelling.progress import Progress
from pipelines.labelling.prometheus import LabelMetrics


@runtime_checkable
class Writer(Protocol):
    """What becomes of one video: its `tracks` that have ended are counted.

    `model_s` and `tracker_s` are seconds of work on it so far.
    """

    tracks: int
    model_s: float
    tracker_s: float

    def add(self, batch: LabelledBatch) -> str | None:
        """Takes a batch in, in any order; returns "ok" or "failed" once the video is finished."""

    def discard(self) -> None:
        """Drops what there is of the video."""


@runtime_checkable
class Writers(Protocol):
    """Makes the writers of an actor; videos that are finished count once they are committed."""

    def new(self, video_id: str, uri: str) -> Writer:
        """The writer of a video."""

    def sees_output(self) -> bool:
        """Whether a lease is on the output, as seen from here."""

    def take(self, writer: Any, status: str) -> None:
        """Takes over a video that is finished."""

    def commit(self, *, due: bool = False) -> None:
        """Makes finished videos count; with `due` only where it is time."""

    def discard(self) -> None:
        """Drops finished videos that do not count yet."""


class TrackerActor:
    """Owns the videos that hash to it.

    One that Ray starts again after a crash knows nothing of the videos that it was in the middle of, or had not
    committed: a later pass of the run does them.

    Args:
        writers: of its own.
    """

    def __init__(self, writers: Writers) -> None:
        self.video_writers = writers
        self.life = uuid.uuid4().hex
        self.writers: dict[str, Writer] = {}
        self.done: set[str] = set()
        self.count = Progress()
        self.metrics = LabelMetrics(self.life)
        self.closed = self.draining = False

    def add(self, batches: list[bytes]) -> None:
        """Takes in labelled batches in any order; those of a video that is done, or after the end, are left aside.

        Raises:
            OSError: the output cannot be written to.
        """
        for data in batches:
            batch: LabelledBatch = pickle.loads(data)  # noqa: S301 - from our own model actors
            if not self.closed and (batch.video_id in self.writers or self._is_welcome(batch.video_id)):
                self._add(batch)
        self.commit(due=True)
        self.metrics.set_open(len(self.writers))

    def _is_welcome(self, video_id: str) -> bool:
        return video_id not in self.done and not self.draining

    def _add(self, batch: LabelledBatch) -> None:
        writer = self.writers.get(batch.video_id)
        if writer is None:
            writer = self.video_writers.new(batch.video_id, batch.uri)
            self.writers[batch.video_id] = writer
        tracks, model_s, tracker_s = writer.tracks, writer.model_s, writer.tracker_s
        try:
            status = writer.add(batch)
        except OSError:  # of this machine's disk: no video is to blame
            raise
        except Exception as error:  # a failure of one video never stops the others
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

    def sees_output(self) -> bool:
        """Whether the output is the one that the run holds the lease on, not a folder of this machine alone."""
        return self.video_writers.sees_output()

    def progress(self) -> tuple[str, Progress]:
        """Counts so far, and which life of the actor they are from."""
        return self.life, self.count

    def drain(self) -> int:
        """Begins no further video; returns how many are begun."""
        self.draining = True
        return len(self.writers)

    def commit(self, *, due: bool = False) -> None:
        """Makes finished videos count, as `Writers.commit`.

        Raises:
            OSError: the output cannot be written to.
        """
        if not self.closed:
            self.video_writers.commit(due=due)

    def close(self) -> None:
        """Drops all that is not committed; batches that still come are left aside."""
        self.closed = True
        for writer in self.writers.values():
            writer.discard()
        self.writers.clear()
        self.video_writers.discard()


class TrackSink(Datasink[None]):
    """Hands each row's labelled batch to the tracker actor that owns its video, and waits until it is taken in.

    Args:
        trackers: handles of `TrackerActor`s.
    """

    def __init__(self, trackers: list[Any]) -> None:
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
