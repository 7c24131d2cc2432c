"""A labelling run: finds the videos that the output lacks, and labels them in passes of the pipeline."""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from openvis_model.video_tracker import VideoTracker
from openvis_model.vocabulary import Vocabulary, VocabularyEmbedding
from openvis_model.weights.light_model import LightModel
from pipelines.archive.compaction import settle
from pipelines.archive.exemplars import read_tracks
from pipelines.archive.parts import PartWriter
from pipelines.archive.registration import registering
from pipelines.archive.run_report import run_report
from pipelines.archive.schemas import Fingerprints
from pipelines.archive.stale import counting, find_stale
from pipelines.archive.tables import Results
from pipelines.cluster.connection import connect
from pipelines.cluster.nodes import check_gpus, cores
from pipelines.labelling.checkpoint_copy import SharedCheckpoint
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.passes import Passes
from pipelines.labelling.progress import Progress
from pipelines.labelling.reconcile import reconcile
from pipelines.labelling.rows import LabelledRow
from pipelines.labelling.video_writer import VideoWriters
from pipelines.labelling.worklist import Worklist, undone
from pipelines.models import embed, load_light_model, load_vocabulary, vocabulary_fingerprint
from pipelines.recipes.origin import check_association
from pipelines.storage.files import Storage
from pipelines.storage.lease import hold_lease
from pipelines.storage.outage import outlast
from pipelines.video.sources import Video, find_videos

CHUNK = 10_000
"""Videos that a pass begins with at most; a run holds only these in memory."""


@dataclass(frozen=True, kw_only=True)
class LabelSummary:
    """The result of a run.

    Attributes:
        videos: videos of the input.
        skipped: videos that earlier runs had labelled.
        ok: videos that this run labelled.
        failures: reasons of the videos that have failed, in this run or an earlier one, by video id.
        frames: frames that this run labelled.
        tracks: tracks that this run found.
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

    A video counts once its row in `videos` is written, so a run that was interrupted resumes when it is started again.
    What is lost with a process or a machine is repeated within the run.

    Args:
        config: the job.
        report: called about once a second with the progress and the number of videos to label.

    Raises:
        ValueError: input, output, vocabulary or checkpoint cannot be used, or another run is writing to the output;
            raised before any video is opened.
        RuntimeError: the run broke off or stalled; committed videos are kept.
        OSError: the output was away for longer than `stall_s`; committed videos are kept.
    """
    start = time.monotonic()
    check_association(config.tracker.association.kind, config.checkpoint)
    vocabulary = load_vocabulary(config.vocabulary, config.synonyms)
    listed = Worklist(find_videos(config.input, allow_http=config.allow_http))
    least, most = config.model_processes()
    check_gpus("model_gpus", config.model_gpus, "model_actors", least, torch.cuda.device_count())
    results = Results(Storage(config.output))
    results.check_writable()
    # A model actor must never keep decoding from finding a CPU: these are slots for work, not cores.
    slots = cores() + most
    with ThreadPoolExecutor(1) as thread:
        loading = thread.submit(_load, config, vocabulary)
        if not results.parts():  # there is work for sure: Ray starts meanwhile
            try:
                connect(slots)
            except RuntimeError:
                loading.result()  # a checkpoint that cannot be used is the first thing to mend
                raise
        model, vocabulary, embedding = loading.result()
    fingerprints = Fingerprints(
        model_fingerprint=model.fingerprint,
        vocabulary_fingerprint=vocabulary_fingerprint(vocabulary),
        config_fingerprint=config.fingerprint(),
        top=config.top,
    )
    with hold_lease(results.storage) as lease:
        settle(results, lease)
        todo = Worklist(
            undone(listed, results, fingerprints, retry_failed=config.retry_failed, overwrite=config.overwrite)
        )
        done, failures = Progress(), dict[str, str]()
        if todo:
            connect(slots)
            tracker = VideoTracker(config.tracker, embedding, model.rollout_tracker, top=config.top)
            name = results.next_run()
            parts = PartWriter(results.storage, name, config.part_mb * 1e6, config.part_s, lease.id)
            writers = VideoWriters(tracker, parts, fingerprints)
            facts = {"config": asdict(config), **vars(fingerprints), "videos": len(listed), "wanted": len(todo)}
            with run_report(results.storage, name, facts) as entries:
                checkpoint = SharedCheckpoint.of(config.checkpoint, model.fingerprint)
                passes = Passes(
                    config, writers, checkpoint, model.short_side, lease, lambda done: report(done, len(todo))
                )
                entries |= {"passes": passes.outcomes, "avoided": passes.avoided}
                try:
                    with registering(results, lease):
                        _label(config, passes, results, writers, todo, proven=len(todo) < len(listed))
                except BaseException:
                    with suppress(OSError, ValueError):  # the error that ended the run matters more
                        entries |= _report(*_committed(results, name))
                    raise
                done, failures = outlast(partial(_committed, results, name), config.stall_s)
                entries |= _report(done, failures)
            outlast(partial(settle, results, lease), config.stall_s)
        failures = outlast(partial(_failures_among, results, listed), config.stall_s) | failures
    return LabelSummary(
        videos=len(listed),
        skipped=len(listed) - len(todo),
        ok=done.ok,
        failures=failures,
        frames=done.frames,
        tracks=done.tracks,
        seconds=time.monotonic() - start,
    )


def _load(config: LabelConfig, vocabulary: Vocabulary) -> tuple[LightModel, Vocabulary, VocabularyEmbedding]:
    model = load_light_model(config.checkpoint)
    vocabulary = read_tracks(vocabulary, model.fingerprint)
    return model, vocabulary, embed(vocabulary, model, config.checkpoint)


def _label(
    config: LabelConfig, passes: Passes, results: Results, writers: VideoWriters, todo: Worklist, *, proven: bool
) -> None:
    """Labels videos; one that is lost again and again gets a row with its error."""

    def tables_of_run() -> list[pa.Table]:
        return results.listed(results.of_run(writers.parts.run))

    def undone_of(wanted: Sequence[Video]) -> list[Video]:
        tables = outlast(tables_of_run, config.stall_s)
        done = pa.chunked_array([ids for videos in tables for ids in videos["video_id"].chunks], pa.string())
        missing = pc.invert(pc.is_in(pa.array([video.video_id for video in wanted], pa.string()), done))
        return list(itertools.compress(wanted, missing.to_pylist()))

    for chunk in todo.chunks(CHUNK):
        for video, reason in reconcile(chunk, passes.run, undone_of, attempts=config.max_attempts, proven=proven):
            times = "once" if config.max_attempts == 1 else f"{config.max_attempts} times"
            error = f"given up, lost {times}: {reason}"
            writer = writers.new(video.video_id, video.uri)
            status = writer.add(LabelledRow(video_id=video.video_id, uri=video.uri, error=error))
            writers.take(writer, str(status))
            outlast(writers.commit, config.stall_s)
        proven = True


def _committed(results: Results, run: str) -> tuple[Progress, dict[str, str]]:
    """Returns what a run has committed, and the reasons of failed videos by id.

    A tracker that dies between its commit and its answer is asked again, and commits the same video again.
    """
    done, failures = Progress(), dict[str, str]()
    parts = results.of_run(run)
    stale = find_stale(results, parts)
    columns = ("video_id", "status", "error", "frames", "tracks")
    for part, rows in zip(parts, results.scan_all("videos", columns, parts=parts), strict=True):
        videos = counting(rows, stale.get(part))
        failed = _failures([videos])
        failures |= failed
        frames, tracks = (pc.sum(videos[name]).as_py() or 0 for name in ("frames", "tracks"))
        done += Progress(ok=videos.num_rows - len(failed), failed=len(failed), frames=frames, tracks=tracks)
    return done, failures


def _report(done: Progress, failures: dict[str, str]) -> dict[str, Any]:
    return {**vars(done), "failures": failures}


def _failures(tables: Iterable[pa.Table]) -> dict[str, str]:
    """Returns the reasons of failed videos by id, from tables of `videos`."""
    failures: dict[str, str] = {}
    for videos in tables:
        failed = videos.filter(pc.equal(videos["status"], "failed"))
        failures |= zip(failed["video_id"].to_pylist(), failed["error"].to_pylist(), strict=True)
    return failures


def _failures_among(results: Results, wanted: Worklist) -> dict[str, str]:
    """Returns the reasons of failed videos by id, for an output that is settled."""
    failures: dict[str, str] = {}
    for part in results.scan_all("videos", ("video_id", "status", "error"), each=lambda rows: _failures([rows])):
        failures |= part
    if not failures:
        return {}
    ids = (video_id for batch in wanted.batches() for video_id in batch["video_id"].to_pylist())
    return {video_id: failures[video_id] for video_id in ids if video_id in failures}
