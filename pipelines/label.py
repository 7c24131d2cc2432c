"""The labelling pipeline: videos in, Parquet tracks out, on Ray Data.

    videos → plan → decode → InstFormer (actor pool) → TrackSink (tracker actors) → tables

One row is a video, then a segment of one, then a batch of its frames; nothing is shuffled or grouped, so a video is
finished and written while others are still being decoded. Dense masks never leave the model actors.
"""

import hashlib
import os
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from openvis_model.video_tracker import VideoTracker
from openvis_model.vocabulary import Vocabulary, embed_vocabulary
from openvis_model.weights import fingerprint
from pipelines.batches import LabelledBatch
from pipelines.cluster import check_gpus, connect
from pipelines.label_config import LabelConfig
from pipelines.label_run import LabelRun
from pipelines.lease import hold_lease
from pipelines.models import load_model
from pipelines.reconcile import reconcile
from pipelines.results import Fingerprints, Results
from pipelines.run_report import run_report
from pipelines.storage import Storage
from pipelines.track_sink import Progress
from pipelines.video_writer import VideoWriter
from pipelines.videos import Video, find_videos


@dataclass(frozen=True, kw_only=True)
class LabelSummary:
    """What a run did.

    Attributes:
        videos: videos wanted.
        skipped: those that were labelled before.
        ok: those labelled now.
        failures: video id and reason of those that failed, now or before.
        frames: frames labelled now.
        tracks: tracks found now.
        seconds: duration of the run.
    """

    videos: int
    skipped: int
    ok: int
    failures: dict[str, str]
    frames: int
    tracks: int
    seconds: float


def label_videos(
    config: LabelConfig, report: Callable[[Progress, int], None] = lambda done, total: None
) -> LabelSummary:
    """Labels every video of the input that the output does not have yet.

    Run again after any interruption, it goes on where it was: a video counts once its row in `videos` is written. What
    is lost with a process or a machine on the way is done again by itself.

    Args:
        config: the job.
        report: called about once a second with the progress and the number of videos to do.

    Raises:
        ValueError: before anything heavy starts, for input, output, vocabulary or checkpoint that cannot be used, and
            for an output that another run is writing to.
        RuntimeError: the run broke off, or came to a standstill; what is committed stays.
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
            about = {"config": asdict(config), **vars(fingerprints), "videos": len(videos), "wanted": len(todo)}
            with run_report(results.storage, about) as told:
                run = LabelRun(config, new_writer, model.config.short_side, lease, lambda done: report(done, len(todo)))
                try:
                    _reconcile(config, run, results, new_writer, todo, proven=len(todo) < len(videos))
                finally:
                    told |= {**vars(run.progress), "passes": run.passes, "failures": run.failures}
            done, failures = run.progress, run.failures
    return LabelSummary(
        videos=len(videos),
        skipped=len(videos) - len(todo),
        ok=len(todo) - len(failures),
        failures=_failed(results, videos) | failures,
        frames=done.frames,
        tracks=done.tracks,
        seconds=time.monotonic() - start,
    )


def _reconcile(
    config: LabelConfig,
    run: LabelRun,
    results: Results,
    new_writer: Callable[[str, str], VideoWriter],
    todo: Sequence[Video],
    *,
    proven: bool,
) -> None:
    """Labels videos; what is lost again and again gets a row that says so."""
    committed = set(results.committed_parts())
    before = {video.video_id: results.video(video.video_id) for video in todo if video.video_id in committed}

    def left(wanted: Sequence[Video]) -> list[Video]:
        committed = set(results.committed_parts())
        return [v for v in wanted if v.video_id not in run.failures and not is_new(v.video_id, committed)]

    def is_new(video_id: str, committed: Set[str]) -> bool:
        """Whether the row of a video is of this run."""
        return video_id in committed and (video_id not in before or results.video(video_id) != before[video_id])

    for video, reason in reconcile(todo, run, left, attempts=config.max_attempts, proven=proven):
        error = f"given up after {config.max_attempts} attempts: {reason}"
        run.failures[video.video_id] = error
        writer = new_writer(video.video_id, video.uri)
        writer.add(LabelledBatch(video_id=video.video_id, uri=video.uri, error=error))


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
