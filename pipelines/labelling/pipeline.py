"""The labelling pipeline on Ray Data: a pass over videos, from their files to the tables.

    videos → plan → decode → InstFormer (actor pool) → TrackSink (tracker actors) → tables

One row is a video, then a segment of one, then a batch of its frames; nothing is shuffled or grouped, so a video is
finished and written while others are still being decoded. Dense masks never leave the model actors.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from openvis_model.mask_proposal import SIZE_DIVISOR
from pipelines.cluster import calm_data, data_stopped, is_loss, reason
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.decode_stage import Decode, Plan
from pipelines.labelling.model_stage import Model
from pipelines.labelling.progress import Progress
from pipelines.labelling.reconcile import PassBrokenError
from pipelines.labelling.track_sink import TrackerActor, TrackSink, Writers
from pipelines.storage.files import ELSEWHERE, Storage
from pipelines.storage.lease import Lease
from pipelines.video.download_cache import DownloadCache
from pipelines.video.sources import Video

ROW_BYTES = 16 * 2**20
"""Size at which decoded batches are handed on: the model begins before a segment is decoded to its end."""

_RESTARTS = 4  # of each actor, in a pass
_ANSWER_S = 10.0  # that an actor may take to answer, while it is started again for one
_COMMIT_S = 600.0  # that it may take to put a part in place

_MAX_BLOCKS = 1024  # of videos; each is an object of Ray


class LabelRun:
    """What the passes of a run have in common.

    Args:
        config: the job.
        writers: what each tracker actor gets a copy of.
        short_side: the model's working size, pixels.
        lease: on the output.
        report: called about once a second with the progress.

    Attributes:
        passes: what ended each, null if nothing broke it.
    """

    def __init__(
        self,
        config: LabelConfig,
        writers: Writers,
        short_side: int,
        lease: Lease,
        report: Callable[[Progress], None],
    ) -> None:
        self.config = config
        self.short_side = short_side
        self.lease = lease
        self.report = report
        self.passes: list[str | None] = []
        self._lives: dict[str, Progress] = {}
        self._writers = ray.put(writers)  # actors that are started again ask for them again

    @property
    def progress(self) -> Progress:
        """Of all passes; what an actor did between its last report and its death is missing."""
        return sum(self._lives.values(), Progress())

    def __call__(self, videos: Sequence[Video]) -> None:
        """One pass.

        Raises:
            PassBrokenError: a process, a machine or an object of Ray was lost too often.
            RuntimeError: an error of the code; no progress for `stall_s`.
            ValueError: the output is a folder that some machine does not see.
            KeyboardInterrupt: after videos that were begun had `grace_s` to be finished.
        """
        actor: Any = ray.remote(TrackerActor)
        actor = actor.options(
            num_cpus=0,
            max_restarts=_RESTARTS,
            max_task_retries=_RESTARTS,
            # With the driver: what they hold is lost with their machine, and workers come and go.
            scheduling_strategy=NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True),
        )
        trackers: list[Any] = [actor.remote(self._writers) for _ in range(self.config.trackers)]
        self.passes.append(None)
        writing: Future[None] | None = None
        try:
            writing = self._start(videos, trackers)
            self._watch(writing, trackers)
        except BaseException as error:
            self.passes[-1] = str(error) or type(error).__name__
            raise
        finally:
            self._end(trackers)
            if writing:
                with data_stopped():  # of a pass that is given up the thread would go on, and start Ray anew
                    wait([writing], timeout=_ANSWER_S)

    def _start(self, videos: Sequence[Video], trackers: list[Any]) -> Future[None]:
        """The whole pipeline; returns what tells that it is done."""
        config = self.config
        context = DataContext.get_current()
        context.target_max_block_size = ROW_BYTES
        calm_data(context)
        blocks = min(len(videos), _MAX_BLOCKS)
        dataset: Dataset = ray.data.from_items([asdict(video) for video in videos], override_num_blocks=blocks)
        cache, limits = DownloadCache(max_bytes=int(config.download_cache_gb * 1e9)), config.limits()
        # 1 video → its segments. Reads the file's index only; a fraction of a CPU, and a stage of its own (no fusion).
        dataset = dataset.flat_map(Plan(config.sampling(), config.segment_frames, cache, limits), num_cpus=0.25)
        # Segments in blocks of their own, so that those of one video are decoded in parallel.
        dataset = dataset.repartition(target_num_rows_per_block=1)
        # 1 segment → its batches, resized to the model's working size: a few MB a row, made while others are consumed.
        decode = Decode(self.short_side, SIZE_DIVISOR, config.batch_size, cache, limits)
        dataset = dataset.flat_map(decode, num_cpus=1)
        # 1 batch → 1 labelled batch of tokens and RLE, some kB. Two in flight: one is fetched while one computes.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")  # no other way to say max_restarts
        dataset = dataset.map_batches(
            Model,
            fn_constructor_args=(config.checkpoint and Storage(config.checkpoint).root,),
            fn_constructor_kwargs={
                "device": "cuda" if config.model_gpus else "cpu",
                "actors": config.model_actors,
                "precision": config.precision,
                "compile": config.compile,
                "objectness_floor": config.objectness_floor,
            },
            batch_size=1,
            compute=ActorPoolStrategy(size=config.model_actors, max_tasks_in_flight_per_actor=2),
            num_gpus=config.model_gpus or None,
            num_cpus=None if config.model_gpus else 1,
            max_restarts=_RESTARTS,  # Ray Data's own default is for ever
            max_task_retries=_RESTARTS,
        )
        thread = ThreadPoolExecutor(1)
        writing = thread.submit(dataset.write_datasink, TrackSink(trackers), ray_remote_args={"num_cpus": 0})
        thread.shutdown(wait=False)  # interrupted, the run ends when its trackers do
        return writing

    def _watch(self, writing: Future[None], trackers: list[Any]) -> None:
        try:
            self._check_output(trackers)
            seen, since = self.progress, time.monotonic()
            while not writing.done():
                wait([writing], timeout=1)
                self.lease.check()
                with suppress(RayError):  # what cannot be put in place is tried again
                    ray.get([tracker.commit.remote(due=True) for tracker in trackers], timeout=_ANSWER_S)
                self._ask(trackers)
                if self.progress != seen:
                    seen, since = self.progress, time.monotonic()
                elif time.monotonic() - since > self.config.stall_s:
                    raise self._standstill()
        except KeyboardInterrupt:
            self._drain(trackers)
            raise
        if error := writing.exception() or self._commit(
            trackers
        ):  # Ray disguises errors as those of the code that it ran, ValueError for one
            if is_loss(error):
                raise PassBrokenError(reason(error)) from error
            raise RuntimeError(f"the run broke off, {reason(error)}; what is committed stays, run it again") from error

    def _standstill(self) -> RuntimeError:
        return RuntimeError(f"no progress for {self.config.stall_s:g} s; {_resources()}")

    def _check_output(self, trackers: list[Any]) -> None:
        try:
            seen = ray.get([tracker.sees_output.remote() for tracker in trackers], timeout=self.config.stall_s)
        except GetTimeoutError as error:
            raise self._standstill() from error
        except RayError as error:
            raise PassBrokenError(reason(error)) from error
        if not all(seen):
            raise ValueError(f"output: {self.config.output} {ELSEWHERE}")

    def _ask(self, trackers: list[Any]) -> None:
        with suppress(RayError):
            self._lives |= dict(ray.get([tracker.progress.remote() for tracker in trackers], timeout=_ANSWER_S))
            self.report(self.progress)

    def _drain(self, trackers: list[Any]) -> None:
        """Waits until the videos that are begun are finished, no longer than `grace_s`."""
        deadline = time.monotonic() + self.config.grace_s
        with suppress(RayError, KeyboardInterrupt):
            while (left := deadline - time.monotonic()) > 0:
                if not any(ray.get([tracker.drain.remote() for tracker in trackers], timeout=left)):
                    return
                time.sleep(0.1)

    def _commit(self, trackers: list[Any]) -> Exception | None:
        """Makes what is finished count; returns what went wrong with one of them."""
        wrong, deadline = None, time.monotonic() + _COMMIT_S
        for committing in [tracker.commit.remote() for tracker in trackers]:
            try:
                ray.get(committing, timeout=max(0.0, deadline - time.monotonic()))
            except RayError as error:
                wrong = error
        return wrong

    def _end(self, trackers: list[Any]) -> None:
        """Ends the actors, which Ray Data's statistics would keep, and what they have of unfinished videos."""
        with suppress(RuntimeError):  # of a run that another one took over from, nothing more counts
            self.lease.check()
            self._commit(trackers)
        with suppress(OSError):  # nobody may be left to report to
            self._ask(trackers)
        for tracker in trackers:
            with suppress(RayError):
                ray.get(tracker.close.remote(), timeout=_ANSWER_S)
            ray.kill(tracker)


def _resources() -> str:
    """What the cluster has, and what of it is free."""
    total, free = ray.cluster_resources(), ray.available_resources()  # type: ignore[no-untyped-call]
    each = [f"{free.get(name, 0):g} of {total[name]:g} {name}s" for name in ("CPU", "GPU") if name in total]
    return f"the cluster has {' and '.join(each)} free; what is committed stays, run it again"
