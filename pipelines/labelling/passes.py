"""Passes: executions of the labelling pipeline inside a run, watched until they end."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from pipelines.cluster.errors import is_loss, reason
from pipelines.cluster.liveness import RayDiedError, answers, check_ray
from pipelines.cluster.ray_data import data_stopped, dead_actors, has_never_started
from pipelines.labelling.checkpoint_copy import SharedCheckpoint
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.pipeline import label, start_trackers, write
from pipelines.labelling.progress import Progress
from pipelines.labelling.reconcile import PassBrokenError
from pipelines.labelling.track_sink import Writers
from pipelines.storage.files import ELSEWHERE
from pipelines.storage.lease import Lease
from pipelines.storage.outage import is_away, outlast
from pipelines.video.sources import Video

_log = logging.getLogger(__name__)

_ANSWER_S = 10.0  # for a call to a tracker, which Ray may be restarting
_COMMIT_S = 600.0  # for committing a part

T = TypeVar("T")


class Passes:
    """The passes of a run.

    Args:
        config: the job.
        writers: each tracker actor gets a copy.
        checkpoint: each model actor loads it.
        short_side: the model's working size, pixels.
        lease: lease on the output.
        report: called about once a second with the progress.

    Attributes:
        outcomes: for each pass the error that ended it, None if it was completed.
        avoided: why machines read no more videos, by address.
    """

    def __init__(
        self,
        config: LabelConfig,
        writers: Writers,
        checkpoint: SharedCheckpoint,
        short_side: int,
        lease: Lease,
        report: Callable[[Progress], None],
    ) -> None:
        self.config = config
        self.checkpoint = checkpoint
        self.short_side = short_side
        self.lease = lease
        self.report = report
        self.outcomes: list[str | None] = []
        self.avoided: dict[str, str] = {}
        self._lives: dict[str, Progress] = {}
        self._losses: dict[str, tuple[int, str]] = {}  # how many, and the reason of the last, by node
        self._sound: set[str] = set()
        self._writers = ray.put(writers)

    @property
    def progress(self) -> Progress:
        """Total over all passes, without work that an actor lost before it was reported."""
        return sum(self._lives.values(), Progress())

    def run(self, videos: Sequence[Video]) -> dict[Video, str]:
        """Executes one pass; returns the videos that a machine has failed to read, with the reasons.

        Raises:
            PassBrokenError: Ray lost a process, a machine or an object too often.
            RuntimeError: the code raised an error, the model cannot be loaded, there was no progress for `stall_s`, or
                Ray died.
            ValueError: the output is a folder that some machine does not see.
            KeyboardInterrupt: after unfinished videos had `grace_s` to be finished.
        """
        earlier = dead_actors()
        trackers = start_trackers(self._writers, self.config.trackers)
        self.outcomes.append(None)
        written: Future[None] | None = None
        try:
            written = write(label(videos, self.config, self.checkpoint, self.short_side, self._avoid()), trackers)
            self._watch(written, trackers, earlier)
            losses = self._take_losses(trackers)
        except BaseException as error:
            self.outcomes[-1] = str(error) or type(error).__name__
            if isinstance(error, RayDiedError):
                written, trackers = None, []  # nothing can be asked of them
            raise
        finally:
            self._end(trackers)
            if written:
                with data_stopped():  # otherwise the abandoned pass's thread would restart Ray
                    wait([written], timeout=_ANSWER_S)
        return {video: losses[video.video_id] for video in videos if video.video_id in losses}

    def _take_losses(self, trackers: list[Any]) -> dict[str, str]:
        """Returns the reasons of videos that were lost in this pass, by id."""
        reasons = {}
        with suppress(RayError):  # a tracker that was restarted has forgotten them; its videos are lost as well
            for losses, sound in ray.get([tracker.losses.remote() for tracker in trackers], timeout=_ANSWER_S):
                self._sound |= sound
                for video_id, loss in losses.items():
                    count, _ = self._losses.get(loss.node, (0, ""))
                    self._losses[loss.node] = count + 1, loss.reason
                    reasons[video_id] = loss.reason
        return reasons

    def _avoid(self) -> list[str]:
        """Returns the machines that have read no video, only failed to; never all of them."""
        alive = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
        failing = {node for node, (count, _) in self._losses.items() if count > 1 and node not in self._sound}
        avoided = sorted(failing & alive.keys())
        if len(avoided) == len(alive):
            return []
        for node in avoided:
            if alive[node] not in self.avoided:
                _, self.avoided[alive[node]] = self._losses[node]
                _log.warning("machine %s reads no more videos: %s", alive[node], self.avoided[alive[node]])
        return avoided

    def _watch(self, written: Future[None], trackers: list[Any], earlier: set[str]) -> None:
        try:
            self._check_output(trackers)
            progress, since = self.progress, time.monotonic()
            while not written.done():
                wait([written], timeout=1)
                self.lease.check_holder(self.config.stall_s)
                with suppress(RayError):  # a commit that fails is repeated
                    answers([tracker.commit.remote(due=True) for tracker in trackers], _ANSWER_S)
                self._update_progress(trackers)
                if self.progress != progress:
                    progress, since = self.progress, time.monotonic()
                elif time.monotonic() - since > self.config.stall_s:
                    raise self._stalled()
        except KeyboardInterrupt:
            self._drain(trackers)
            raise
        check_ray()
        if error := written.exception() or self._commit_all(trackers):
            # Ray wraps an error so that it is also an instance of the original class, such as ValueError.
            if is_loss(error):
                if has_never_started(error, dead_actors() - earlier):
                    raise RuntimeError(
                        f"the model cannot be loaded: {reason(error)}; committed videos are kept, run it again"
                    ) from error
                raise PassBrokenError(reason(error)) from error
            raise RuntimeError(
                f"the run broke off, {reason(error)}; committed videos are kept, run it again"
            ) from error

    def _stalled(self) -> RuntimeError:
        return RuntimeError(f"no progress for {self.config.stall_s:g} s; {_resources()}")

    def _check_output(self, trackers: list[Any]) -> None:
        def ask() -> list[Any]:
            return answers([tracker.sees_output.remote() for tracker in trackers], self.config.stall_s)

        try:
            visible = self._outlast(ask)
        except GetTimeoutError as error:
            raise self._stalled() from error
        except RayError as error:
            raise PassBrokenError(reason(error)) from error
        if not all(visible):
            raise ValueError(f"output: {self.config.output} {ELSEWHERE}")

    def _update_progress(self, trackers: list[Any]) -> None:
        with suppress(RayError):
            self._lives |= dict(answers([tracker.progress.remote() for tracker in trackers], _ANSWER_S))
            self.report(self.progress)

    def _drain(self, trackers: list[Any]) -> None:
        """Waits until no video is unfinished, at most `grace_s`."""
        deadline = time.monotonic() + self.config.grace_s
        with suppress(RayError, KeyboardInterrupt):
            while (left := deadline - time.monotonic()) > 0:
                if not any(ray.get([tracker.drain.remote() for tracker in trackers], timeout=left)):
                    return
                time.sleep(0.1)

    def _commit_all(self, trackers: list[Any]) -> Exception | None:
        """Commits finished videos, however long the output is away; returns the error of a tracker that could not."""
        try:
            self._outlast(partial(self._commit, trackers))
        except (RayError, OSError) as error:
            return error
        return None

    def _outlast(self, ask: Callable[[], T]) -> T:
        """Returns what trackers answer; asks again while the output is away, for up to `stall_s`."""

        def ask_holding() -> T:
            self.lease.check_holder(self.config.stall_s)
            try:
                return ask()
            except RayTaskError as error:
                if is_away(error.cause):
                    raise error.cause from error
                raise

        return outlast(ask_holding, self.config.stall_s)

    def _commit(self, trackers: list[Any]) -> None:
        """Has all trackers commit their finished videos; raises the error of one that could not."""
        failure: RayError | None = None
        deadline = time.monotonic() + _COMMIT_S
        for commit in [tracker.commit.remote() for tracker in trackers]:
            try:
                ray.get(commit, timeout=max(0.0, deadline - time.monotonic()))
            except RayError as error:
                failure = error
        if failure:
            raise failure

    def _end(self, trackers: list[Any]) -> None:
        """Commits what is finished, drops what is not, and kills the actors: Ray Data's statistics keep handles."""
        with suppress(RuntimeError, RayError):  # once another run holds the lease, nothing of this one may count
            self.lease.check_holder(self.config.stall_s)
            self._commit(trackers)
        with suppress(OSError, RayDiedError):  # stderr may be closed
            self._update_progress(trackers)
        for tracker in trackers:
            with suppress(RayError):
                ray.get(tracker.close.remote(), timeout=_ANSWER_S)
            ray.kill(tracker)


def _resources() -> str:
    """Returns what the cluster has, and how much of it is free."""
    total, free = ray.cluster_resources(), ray.available_resources()  # type: ignore[no-untyped-call]
    resources = [f"{free.get(name, 0):g} of {total[name]:g} {name}s" for name in ("CPU", "GPU") if name in total]
    return f"the cluster has {' and '.join(resources)} free; committed videos are kept, run it again"
