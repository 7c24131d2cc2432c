"""The labelling pipeline: videos in, Parquet tracks out, on Ray Data.

    videos → plan → decode → InstFormer (actor pool) → TrackSink (tracker actors) → tables

One row is a video, then a segment of one, then a batch of its frames; nothing is shuffled or grouped, so a video is
finished and written while others are still being decoded. Dense masks never leave the model actors.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray.data import ActorPoolStrategy, DataContext, Dataset

from openvis_model.mask_proposal import SIZE_DIVISOR
from openvis_model.video_tracker import VideoTracker, VideoTrackerConfig
from openvis_model.vocabulary import Vocabulary, embed_vocabulary
from openvis_model.weights import fingerprint
from pipelines.cluster import calm_data, check_gpus, connect, reason
from pipelines.decode_stage import Decode, Plan
from pipelines.download_cache import DownloadCache
from pipelines.lease import Lease, hold_lease
from pipelines.model_stage import Model, Precision
from pipelines.models import load_model
from pipelines.results import Fingerprints, Results
from pipelines.storage import Storage
from pipelines.track_sink import Progress, TrackerActor, TrackSink
from pipelines.video_index import Sampling
from pipelines.video_writer import VideoWriter
from pipelines.videos import Video, find_videos

ROW_BYTES = 16 * 2**20
"""Size at which decoded batches are handed on: the model begins before a segment is decoded to its end."""


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """A labelling job.

    Attributes:
        input: folder, glob, video file, manifest (.csv, .parquet, .jsonl), or folder of frame images; local or s3://.
        output: folder of the tables, local or s3://.
        vocabulary: text file of what to look for, one category per line, synonyms separated by commas.
        checkpoint: checkpoint folder, local or s3://; the built-in model if none is given.
        fps: frames looked at per second of video; all of them if not given.
        stride: instead of fps, every how manieth frame is looked at.
        tracker: when tracks begin and end.
        objectness_floor: proposals below are not embedded; at most the tracker's threshold.
        top: categories listed for a track, the best one included.
        batch_size: frames that go through the model together.
        segment_frames: frames after which a long video may be cut, so that its parts are decoded in parallel; null
            cuts none.
        precision: `bfloat16` runs the model under autocast.
        compile: whether the networks are compiled by torch first.
        download_cache_gb: of videos on S3 that each node keeps on its disk, 10⁹ bytes; those in use may be more.
        model_actors: processes that run the model.
        model_gpus: GPUs of each; 0 runs on the CPU.
        trackers: processes that track and write.
        retry_failed: whether videos that failed before are tried again.
        overwrite: whether videos that were labelled by another model, or with another vocabulary or other settings, are
            labelled again; each keeps its old tracks until it has new ones. An output with such videos is refused
            otherwise.
    """

    input: str
    output: str
    vocabulary: str
    checkpoint: str | None = None
    fps: float | None = None
    stride: int = 1
    tracker: VideoTrackerConfig = field(default_factory=VideoTrackerConfig)
    objectness_floor: float = 0.5
    top: int = 5
    batch_size: int = 8
    segment_frames: int | None = 256
    precision: Precision = "float32"
    compile: bool = False
    download_cache_gb: float = 20.0
    model_actors: int = 1
    model_gpus: float = 0.0
    trackers: int = 1
    retry_failed: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("top", "batch_size", "segment_frames", "model_actors", "trackers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        for name in ("model_gpus", "download_cache_gb"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        if not 0 <= self.objectness_floor <= self.tracker.objectness_threshold:
            raise ValueError(
                f"objectness_floor: expected 0 to the tracker's objectness_threshold "
                f"({self.tracker.objectness_threshold}), got {self.objectness_floor}; lower it or raise the threshold"
            )
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision: unknown value {self.precision!r}; choose float32 or bfloat16")
        self.sampling()  # checks fps and stride

    def sampling(self) -> Sampling:
        """Which frames are looked at."""
        return Sampling(fps=self.fps, stride=self.stride)

    def fingerprint(self) -> str:
        """Of the settings that the tables depend on; batches, segments and actors are not among them."""
        settings = [
            self.fps and float(self.fps),
            self.stride,
            asdict(self.tracker),
            self.objectness_floor,
            self.top,
            self.precision,
        ]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class LabelSummary:
    """What a run did.

    Attributes:
        videos: videos wanted.
        skipped: those that were labelled before.
        ok: those labelled now.
        failures: video id and reason of those that failed, now or before.
        missing: ids of those that were lost on the way; another run does them.
        frames: frames labelled now.
        tracks: tracks found now.
        seconds: duration of the run.
    """

    videos: int
    skipped: int
    ok: int
    failures: dict[str, str]
    missing: list[str]
    frames: int
    tracks: int
    seconds: float


def label_videos(
    config: LabelConfig, report: Callable[[Progress, int], None] = lambda done, total: None
) -> LabelSummary:
    """Labels every video of the input that the output does not have yet.

    Run again after any interruption, it goes on where it was: a video counts once its row in `videos` is written.

    Args:
        config: the job.
        report: called about once a second with the progress and the number of videos to do.

    Raises:
        ValueError: before anything heavy starts, for input, output, vocabulary or checkpoint that cannot be used, and
            for an output that another run is writing to.
        RuntimeError: the run broke off; what is committed stays.
    """
    start = time.monotonic()
    vocabulary = Vocabulary.read(Path(config.vocabulary))
    videos = list(find_videos(config.input))
    check_gpus("model_gpus", config.model_gpus, "model_actors", config.model_actors, torch.cuda.device_count())
    results = Results(Storage(config.output))
    results.check_writable()
    model = load_model(config.checkpoint)
    embedding = embed_vocabulary(vocabulary, model.text_encoder)
    fingerprints = Fingerprints(
        model_fingerprint=fingerprint(model),
        vocabulary_fingerprint=hashlib.sha256(repr(vocabulary.categories).encode()).hexdigest(),
        config_fingerprint=config.fingerprint(),
    )
    with hold_lease(results.storage) as lease:
        results.remove_leftovers()
        todo = _todo(config, results, videos, fingerprints)
        done, failures = Progress(), {}
        if todo:
            # A model actor must never keep decoding from finding a CPU: these are slots for work, not cores.
            connect((os.cpu_count() or 1) + config.model_actors)
            tracker = VideoTracker(config.tracker, embedding, model.rollout_tracker)
            new_writer = partial(
                VideoWriter, tracker=tracker, results=results, fingerprints=fingerprints, top=config.top
            )
            tracker_actor = ray.remote(num_cpus=0)(TrackerActor)
            trackers: list[Any] = [tracker_actor.remote(new_writer) for _ in range(config.trackers)]
            try:
                done = _run(config, todo, trackers, model.config.short_side, lease, report)
                failures = {
                    key: value for each in ray.get([t.failed.remote() for t in trackers]) for key, value in each.items()
                }
            finally:
                _end(trackers)
        missing = _todo(config, results, todo, fingerprints)  # whatever was lost on the way
    return LabelSummary(
        videos=len(videos),
        skipped=len(videos) - len(todo),
        ok=done.ok,
        failures=_failed(results, videos) | failures,
        missing=sorted({video.video_id for video in missing} - failures.keys()),
        frames=done.frames,
        tracks=done.tracks,
        seconds=time.monotonic() - start,
    )


def _run(
    config: LabelConfig,
    todo: list[Video],
    trackers: list[Any],
    short_side: int,
    lease: Lease,
    report: Callable[[Progress, int], None],
) -> Progress:
    """The whole pipeline."""
    context = DataContext.get_current()
    context.target_max_block_size = ROW_BYTES
    calm_data(context)
    dataset: Dataset = ray.data.from_items([asdict(video) for video in todo], override_num_blocks=len(todo))
    cache = DownloadCache(max_bytes=int(config.download_cache_gb * 1e9))
    # 1 video → its segments. Reads the file's index only; a fraction of a CPU, and a stage of its own (no fusion).
    dataset = dataset.flat_map(Plan(config.sampling(), config.segment_frames, cache), num_cpus=0.25)
    # Segments in blocks of their own, so that those of one video are decoded in parallel.
    dataset = dataset.repartition(target_num_rows_per_block=1)
    # 1 segment → its batches, resized to the model's working size: a few MB a row, made while others are consumed.
    dataset = dataset.flat_map(Decode(short_side, SIZE_DIVISOR, config.batch_size, cache), num_cpus=1)
    # 1 batch → 1 labelled batch of tokens and RLE, some kB. Two in flight: one is fetched while one computes.
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
    )
    thread = ThreadPoolExecutor(1)
    writing = thread.submit(dataset.write_datasink, TrackSink(trackers), ray_remote_args={"num_cpus": 0})
    thread.shutdown(wait=False)  # interrupted, the run ends when its trackers do
    while not writing.done():
        wait([writing], timeout=1)
        lease.check()
        report(_progress(trackers), len(todo))
    if error := writing.exception():  # Ray disguises errors as those of the code that it ran, ValueError for one
        raise RuntimeError(f"the run broke off, {reason(error)}; what is committed stays, run it again") from error
    return _progress(trackers)


def _end(trackers: list[Any]) -> None:
    """Ends the actors, which Ray Data's statistics would keep; what they have of unfinished videos goes with them."""
    with suppress(ray.exceptions.RayError):
        ray.get([tracker.close.remote() for tracker in trackers], timeout=10)
    for tracker in trackers:
        ray.kill(tracker)


def _todo(config: LabelConfig, results: Results, videos: list[Video], fingerprints: Fingerprints) -> list[Video]:
    """Videos that the output lacks.

    Raises:
        ValueError: if the output has videos under another model, vocabulary or settings, or another file under the id
            of a video, that are not to be overwritten.
    """
    uris = {video.video_id: video.uri for video in videos}
    done = set()
    for row in results.read("videos").select(["video_id", "uri", "status", *vars(fingerprints)]).to_pylist():
        differing = [
            name.removesuffix("_fingerprint") for name, value in vars(fingerprints).items() if row[name] != value
        ]
        uri = uris.get(row["video_id"], row["uri"])
        if not differing and uri == row["uri"]:
            if row["status"] == "ok" or not config.retry_failed:
                done.add(row["video_id"])
        elif not config.overwrite:
            what = f"videos labelled with another {' and '.join(differing)}"
            if not differing:
                what = f"{row['uri']} under the id {row['video_id']!r}, which is now that of {uri}"
            raise ValueError(f"output: {config.output} has {what}; choose another output, or --overwrite true")
    return [video for video in videos if video.video_id not in done]


def _failed(results: Results, videos: list[Video]) -> dict[str, str]:
    """Ids and reasons of those videos that the output has as failed."""
    ids = {video.video_id for video in videos}
    rows = results.read("videos").select(["video_id", "status", "error"]).to_pylist()
    return {row["video_id"]: row["error"] for row in rows if row["status"] == "failed" and row["video_id"] in ids}


def _progress(trackers: list[Any]) -> Progress:
    counts: list[Progress] = ray.get([tracker.progress.remote() for tracker in trackers])
    return sum(counts, Progress())
