"""The labelling pipeline: videos in, Parquet tracks out, on Ray Data.

    videos → plan → decode → InstFormer (actor pool) → TrackSink (tracker actors) → tables

One row is a video, then a segment of one, then a batch of its frames; nothing is shuffled or grouped, so a video is
finished and written while others are still being decoded. Dense masks never leave the model actors.
"""

import hashlib
import json
import logging
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray
import torch
from jaxtyping import UInt8
from ray.data import ActorPoolStrategy, DataContext, Dataset

from openvis_model.frames import working_size
from openvis_model.mask_proposal import SIZE_DIVISOR
from openvis_model.video_tracker import VideoTrackerConfig
from openvis_model.vocabulary import Vocabulary, embed_vocabulary
from openvis_model.weights import fingerprint
from pipelines.decode import FrameBatch, decode
from pipelines.models import load_model
from pipelines.results import Results
from pipelines.storage import Storage
from pipelines.track_sink import Fingerprints, LabelledBatch, Progress, TrackerActor, TrackSink
from pipelines.video_index import Sampling, VideoError, plan_video
from pipelines.videos import Video, find_videos

ROW_BYTES = 16 * 2**20
"""Size at which decoded batches are handed on: the model begins before a segment is decoded to its end."""

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """A labelling job.

    Attributes:
        input: folder, glob, video file, manifest (.csv, .parquet, .jsonl), or folder of frame images.
        output: folder of the tables.
        vocabulary: text file of what to look for, one category per line, synonyms separated by commas.
        checkpoint: checkpoint folder; the built-in model if none is given.
        fps: frames looked at per second of video; all of them if not given.
        stride: instead of fps, every how manieth frame is looked at.
        tracker: when tracks begin and end.
        objectness_floor: proposals below are not embedded; at most the tracker's threshold.
        batch_size: frames that go through the model together.
        segment_frames: frames after which a long video may be cut, so that its parts are decoded in parallel; null
            cuts none.
        precision: `bfloat16` runs the model under autocast.
        compile: whether the networks are compiled by torch first.
        model_actors: processes that run the model.
        model_gpus: GPUs of each; 0 runs on the CPU.
        trackers: processes that track and write.
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
    batch_size: int = 8
    segment_frames: int | None = 256
    precision: Precision = "float32"
    compile: bool = False
    model_actors: int = 1
    model_gpus: float = 0.0
    trackers: int = 1
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "segment_frames", "model_actors", "trackers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
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
        settings = [self.fps, self.stride, asdict(self.tracker), self.objectness_floor, self.precision]
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
        ValueError: before anything heavy starts, for input, output, vocabulary or checkpoint that cannot be used.
        RuntimeError: the run broke off; what is committed stays.
    """
    start = time.monotonic()
    results = Results(Storage(config.output))
    results.storage.check_writable()
    vocabulary = Vocabulary.read(Path(config.vocabulary))
    videos = list(find_videos(config.input))
    model = load_model(config.checkpoint)
    embedding = embed_vocabulary(vocabulary, model.text_encoder)
    fingerprints = Fingerprints(
        model_fingerprint=fingerprint(model),
        vocabulary_fingerprint=hashlib.sha256(repr(vocabulary.categories).encode()).hexdigest(),
        config_fingerprint=config.fingerprint(),
    )
    results.remove_leftovers()
    todo = _todo(config, results, videos, fingerprints)
    _connect(config)
    tracker_actor = ray.remote(num_cpus=0)(TrackerActor)
    trackers = [
        tracker_actor.remote(config.tracker, embedding, model.rollout_tracker, config.output, fingerprints)
        for _ in range(config.trackers)
    ]
    done = _run(config, todo, trackers, model.config.short_side, report) if todo else Progress()
    return _summary(videos, todo, results, done, time.monotonic() - start)


def _run(
    config: LabelConfig,
    todo: list[Video],
    trackers: list[Any],
    short_side: int,
    report: Callable[[Progress, int], None],
) -> Progress:
    """The whole pipeline."""
    dataset: Dataset = ray.data.from_items([asdict(video) for video in todo], override_num_blocks=len(todo))
    # 1 video → its segments. Reads the file's index only; a fraction of a CPU, and a stage of its own (no fusion).
    dataset = dataset.flat_map(Plan(config.sampling(), config.segment_frames), num_cpus=0.25)
    # Segments in blocks of their own, so that those of one video are decoded in parallel.
    dataset = dataset.repartition(target_num_rows_per_block=1)
    # 1 segment → its batches, resized to the model's working size: a few MB a row, made while others are consumed.
    dataset = dataset.flat_map(Decode(short_side, config.batch_size), num_cpus=1)
    # 1 batch → 1 labelled batch of tokens and RLE, some kB. Two in flight: one is fetched while one computes.
    dataset = dataset.map_batches(
        Model,
        fn_constructor_args=(config,),
        batch_size=1,
        compute=ActorPoolStrategy(size=config.model_actors, max_tasks_in_flight_per_actor=2),
        num_gpus=config.model_gpus or None,
        num_cpus=None if config.model_gpus else 1,
    )
    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(dataset.write_datasink, TrackSink(trackers), ray_remote_args={"num_cpus": 0})
        while not writing.done():
            wait([writing], timeout=1)
            report(_progress(trackers), len(todo))
        try:
            writing.result()
            return _progress(trackers)
        except Exception as error:  # Ray disguises errors as those of the code that it ran, ValueError for one
            raise RuntimeError(f"the run broke off: {error}") from error


class Plan:
    """Rows of videos become rows of segments.

    Args:
        sampling: which frames are kept.
        segment_frames: frames after which a video may be cut.
    """

    def __init__(self, sampling: Sampling, segment_frames: int | None) -> None:
        self.sampling = sampling
        self.segment_frames = segment_frames

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """One row per segment, or one with the error."""
        head = LabelledBatch(video_id=row["video_id"], uri=row["uri"])
        try:
            plan = plan_video(row["uri"], self.sampling, self.segment_frames)
        except VideoError as error:
            yield {"head": pickle.dumps(replace(head, error=str(error))), "segment": b""}
            return
        expected = sum(len(segment.frames) for segment in plan.segments)
        head = replace(head, info=plan.info, segments=len(plan.segments), expected_frames=expected)
        for segment in plan.segments:
            yield {"head": pickle.dumps(replace(head, segment=segment.index)), "segment": pickle.dumps(segment)}


class Decode:
    """Rows of segments become rows of batches of frames.

    Args:
        short_side: the model's working size, pixels.
        batch_size: frames per batch.
    """

    def __init__(self, short_side: int, batch_size: int) -> None:
        self.short_side = short_side
        self.batch_size = batch_size

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """One row per batch; at least one per segment, without frames if there are none."""
        head: LabelledBatch = pickle.loads(row["head"])  # noqa: S301 - from our own tasks, as below
        empty = np.zeros((0, 1, 1, 3), np.uint8)
        if head.info is None:
            yield {"head": row["head"], "frames": empty}
            return
        size = working_size(head.info.height, head.info.width, short_side=self.short_side, divisor=SIZE_DIVISOR)
        try:
            segment = pickle.loads(row["segment"])  # noqa: S301
            batches = decode(head.uri, head.info, segment, size=size, batch_size=self.batch_size)
            held, number = FrameBatch(frames=empty, frame=np.zeros(0, np.int64), time_s=np.zeros(0)), 0
            for batch in batches:
                if len(held.frames):
                    yield self._row(head, held, number, last=False)
                    number += 1
                held = batch
            yield self._row(head, held, number, last=True)
        except VideoError as error:
            yield {"head": pickle.dumps(replace(head, error=str(error))), "frames": empty}

    def _row(self, head: LabelledBatch, batch: FrameBatch, number: int, *, last: bool) -> dict[str, Any]:
        frame, time_s = tuple(batch.frame.tolist()), tuple(batch.time_s.tolist())
        head = replace(head, batch=number, last_batch=last, frame=frame, time_s=time_s)
        return {"head": pickle.dumps(head), "frames": batch.frames}


class Model:
    """Rows of batches of frames become rows of labelled batches; holds the model of one actor.

    Args:
        config: which model, and how it runs.
    """

    def __init__(self, config: LabelConfig) -> None:
        self.device = torch.device("cuda" if config.model_gpus else "cpu")
        if self.device.type == "cpu":
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // config.model_actors))
        self.model = load_model(config.checkpoint).to(self.device).fold_for_inference()
        if config.compile:
            self.model.mask_proposal.compile()
            self.model.classifier.compile()
        self.objectness_floor = config.objectness_floor
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16")

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """One row in, one row out."""
        labelled: LabelledBatch = pickle.loads(rows["head"][0])  # noqa: S301
        if labelled.error is None and labelled.frame:
            labelled = self._label(labelled, rows["frames"][0])
        return {"video_id": [labelled.video_id], "labelled": [pickle.dumps(labelled)]}

    def _label(self, labelled: LabelledBatch, frames: UInt8[np.ndarray, "T H W 3"]) -> LabelledBatch:
        assert labelled.info is not None
        start = time.perf_counter()
        try:
            with self.autocast:
                instances = self.model(
                    torch.from_numpy(np.ascontiguousarray(frames)),
                    objectness_floor=self.objectness_floor,
                    frame_size=(labelled.info.height, labelled.info.width),
                )
        except Exception as error:  # a failure of one video never stops the others
            return replace(labelled, error=f"model failed on frames from {labelled.frame[0]}: {error!r}")
        return replace(labelled, instances=tuple(instances), model_s=time.perf_counter() - start)


def _todo(config: LabelConfig, results: Results, videos: list[Video], fingerprints: Fingerprints) -> list[Video]:
    """Videos that the output lacks.

    Raises:
        ValueError: if the output has videos under another model, vocabulary or settings that are not to be overwritten.
    """
    done = set()
    for row in results.read("videos").select(["video_id", *vars(fingerprints)]).to_pylist():
        differing = [
            name.removesuffix("_fingerprint") for name, value in vars(fingerprints).items() if row[name] != value
        ]
        if not differing:
            done.add(row["video_id"])
        elif not config.overwrite:
            raise ValueError(
                f"output: {config.output} has videos labelled with another {' and '.join(differing)}; "
                "choose another output, or --overwrite true"
            )
    return [video for video in videos if video.video_id not in done]


def _summary(videos: list[Video], todo: list[Video], results: Results, done: Progress, seconds: float) -> LabelSummary:
    ids = {video.video_id for video in videos}
    rows = [
        row
        for row in results.read("videos").select(["video_id", "status", "error"]).to_pylist()
        if row["video_id"] in ids
    ]
    return LabelSummary(
        videos=len(videos),
        skipped=len(videos) - len(todo),
        ok=done.ok,
        failures={row["video_id"]: row["error"] for row in rows if row["status"] == "failed"},
        missing=sorted(ids - {row["video_id"] for row in rows}),
        frames=done.frames,
        tracks=done.tracks,
        seconds=seconds,
    )


def _connect(config: LabelConfig) -> None:
    """Joins the running cluster, or starts Ray on this machine; keeps Ray's own messages out of the way."""
    if not ray.is_initialized():
        # A model actor must never keep decoding from finding a CPU: these are slots for work, not cores.
        slots = (os.cpu_count() or 1) + config.model_actors
        cluster = os.environ.get("RAY_ADDRESS")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        with _silent_stderr():  # even the log level is logged; what goes wrong is raised
            ray.init(num_cpus=None if cluster else slots, log_to_driver=False, logging_level=logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.verbose_progress = False
    context.target_max_block_size = ROW_BYTES
    logging.getLogger("ray.data").setLevel(logging.ERROR)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keeps what native code writes to stderr from a person's terminal."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _progress(trackers: list[Any]) -> Progress:
    counts: list[Progress] = ray.get([tracker.progress.remote() for tracker in trackers])
    return sum(counts, Progress())
