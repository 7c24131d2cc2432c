"""The labelling pipeline on Ray Data, from videos to the tables.

    videos → Plan → Decode → Model (actor pool) → TrackSink (tracker actors) → tables

A row is a video, then a load of segments, then a batch of frames of one video; `rows` has the columns. Short videos
share tasks, as a task costs more than their frames; long ones are decoded by several tasks. Nothing is
shuffled, so a video is finished and written while others are still being decoded. Dense masks never leave the model
actors.
"""

import math
import warnings
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from openvis_model.options import SIZE_DIVISOR
from pipelines.cluster.nodes import thread_limit
from pipelines.cluster.ray_data import RESTARTS, calm_data
from pipelines.labelling.checkpoint_copy import SharedCheckpoint
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.decode_operator import Decode, Plan
from pipelines.labelling.model_operator import AT_ONCE, Model
from pipelines.labelling.placement import parse_machines, placed
from pipelines.labelling.track_sink import TrackerActor, TrackSink
from pipelines.video.download_cache import DownloadCache, is_downloaded
from pipelines.video.sources import Video
from pipelines.video.web import Web

ROW_BYTES = 4 * 2**20
"""Size at which decoded batches are handed on: the model begins before a segment is decoded to its end."""

_CORE = 0.999
"""CPUs of a model actor without a GPU: if it took 1 as `Decode` does, Ray Data would fuse both into one process."""

_GROUP = 16
"""Videos that one task plans at most: it then costs little beside them, and none of them waits long for the others."""

_TASKS_PER_CPU = 4
"""Tasks of `Plan` that each CPU gets at least before videos share one, so that all CPUs are busy to the end."""


def label(
    videos: Sequence[Video],
    config: LabelConfig,
    checkpoint: SharedCheckpoint,
    short_side: int,
    avoided: Collection[str] = (),
) -> Dataset:
    """Returns the lazy data set of labelled batches, rows of `LabelledRow`.

    Args:
        videos: at least one.
        config: the job.
        checkpoint: that of the job.
        short_side: the model's working size, pixels.
        avoided: Ray's ids of machines that must not read videos.
    """
    context = DataContext.get_current()
    context.target_max_block_size = ROW_BYTES
    calm_data(context)
    reading = placed(parse_machines("decode_on", config.decode_on), avoided)
    web = Web(max_bytes=int(config.http_max_gb * 1e9)) if config.allow_http else None
    cache, limits = DownloadCache(max_bytes=int(config.download_cache_gb * 1e9), web=web), config.limits()

    # Unlike `from_arrow`, `from_items` makes its blocks here, without a task that waits for a process to start.
    blocks = math.ceil(len(videos) / group_size(videos, ray.cluster_resources().get("CPU", 1.0)))  # type: ignore[no-untyped-call]
    dataset: Dataset = ray.data.from_items([asdict(video) for video in videos], override_num_blocks=blocks)
    # 1 group of videos → its segments in loads. Reads the files' index only: a fraction of a CPU, so it must not share
    # a task with Decode.
    plan = Plan(config.sampling(), config.segment_frames, cache, limits)
    dataset = dataset.map_batches(plan, batch_format="pyarrow", batch_size=None, **reading, num_cpus=0.25)
    # 1 load → 1 block, so that the segments of one video are decoded in parallel.
    dataset = dataset.repartition(target_num_rows_per_block=1)
    # 1 load → its batches, resized to the model's working size: a few MB a row, handed on while others are decoded.
    decode = Decode(short_side, SIZE_DIVISOR, config.batch_size, cache, limits, config.shots)
    dataset = dataset.map_batches(decode, batch_format="pyarrow", batch_size=1, **reading, num_cpus=1)
    # Batches → their instances, some kB of tokens and RLE. As many blocks are fetched as are computed meanwhile.
    least, most = config.model_processes()
    return dataset.map_batches_internal(  # `map_batches` takes no whole blocks if there are GPUs
        Model,
        batch_format="pyarrow",
        batch_size=None,
        fn_constructor_args=(checkpoint,),
        fn_constructor_kwargs={
            "device": "cuda" if config.model_gpus else "cpu",
            "actors": most,
            "at_once": AT_ONCE,
            "threads": thread_limit(),
            "batch_size": config.batch_size,
            "precision": config.precision,
            "compile": config.compile,
            "objectness_floor": config.objectness_floor,
        },
        compute=ActorPoolStrategy(
            min_size=least,
            max_size=most,
            max_tasks_in_flight_per_actor=2 * AT_ONCE,
            max_concurrent_calls_per_actor=AT_ONCE,
            enable_true_multi_threading=True,
        ),
        **placed(parse_machines("model_on", config.model_on)),
        num_gpus=config.model_gpus or None,
        num_cpus=None if config.model_gpus else _CORE,
    )


def group_size(videos: Sequence[Video], cpus: float) -> int:
    """Returns the number of videos that share a task of `Plan`.

    Videos that are downloaded share none: a task hands on what it has planned when it ends, so large downloads would
    hold up the decoding of those before them, and might leave the cache before they are decoded.
    """
    if any(is_downloaded(video.uri) for video in videos):
        return 1
    return max(1, min(_GROUP, int(len(videos) / (_TASKS_PER_CPU * cpus))))


def start_trackers(writers: Any, count: int) -> list[Any]:
    """Starts tracker actors on the driver's machine: workers come and go, and uncommitted videos are lost with theirs.

    Args:
        writers: reference to the `Writers` in Ray's store; an actor that is restarted reads them again.
        count: number of actors.

    Returns:
        The actors' handles.
    """
    actor: Any = ray.remote(TrackerActor)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    # 0 CPUs, so that they take no slot from decoders and model actors.
    actor = actor.options(num_cpus=0, max_restarts=RESTARTS, max_task_retries=RESTARTS, scheduling_strategy=here)
    return [actor.remote(writers) for _ in range(count)]


def write(dataset: Dataset, trackers: list[Any]) -> Future[None]:
    """Runs the pipeline in a thread; returns a future that resolves when every batch has reached its tracker."""
    thread = ThreadPoolExecutor(1)
    # Tasks without CPUs have no other limit, and each that waits for a tracker is a process of its own.
    waiting = 2 * len(trackers)
    warnings.filterwarnings("ignore", message="The maximum number of concurrent tasks")  # few videos need fewer
    sink, no_slot = TrackSink(trackers), {"num_cpus": 0}
    written = thread.submit(dataset.write_datasink, sink, ray_remote_args=no_slot, concurrency=waiting)
    thread.shutdown(wait=False)  # when a pass is interrupted, the thread ends with its trackers
    return written
