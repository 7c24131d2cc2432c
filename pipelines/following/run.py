"""A job that follows objects through a video, from its options to an archive."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch

from openvis_model.prompts import Prompt, parse_prompts
from openvis_model.track import Track
from pipelines.archive.compaction import settle
from pipelines.archive.parts import PartWriter, Rows
from pipelines.archive.registration import registering
from pipelines.archive.run_report import run_report
from pipelines.archive.schemas import Fingerprints
from pipelines.archive.tables import Results
from pipelines.cluster.nodes import thread_limit
from pipelines.following.config import PROMPTED, TrackConfig
from pipelines.following.follow import Followed, Following, follow_prompts
from pipelines.labelling.checkpoint_copy import SharedCheckpoint
from pipelines.labelling.model_operator import Model
from pipelines.labelling.video_writer import incomplete, track_row, video_row
from pipelines.models import load_light_model
from pipelines.recipes.origin import check_association
from pipelines.storage.files import Storage, bad_input, folder_of
from pipelines.storage.lease import hold_lease
from pipelines.storage.outage import outlast
from pipelines.video.download_cache import DownloadCache
from pipelines.video.plan import VideoError
from pipelines.video.sources import Video, find_videos


@dataclass(frozen=True, kw_only=True)
class TrackSummary:
    """The result of a run.

    Attributes:
        video_id: the video.
        tracks: its tracks, with their prompts; empty if it was done already.
        frames: frames that were looked at; 0 if it was done already.
        error: what is missing of the video, if anything is.
        seconds: duration of the run.
    """

    video_id: str
    tracks: list[tuple[Track, Prompt]]
    frames: int
    error: str | None
    seconds: float


def track_video(config: TrackConfig, report: Callable[[int, int], None] = lambda done, total: None) -> TrackSummary:
    """Follows the objects of the prompts, and writes their tracks as labelling would.

    Args:
        config: the job.
        report: called with the number of frames looked at, and of all to look at.

    Raises:
        ValueError: the video, the output, a prompt or the checkpoint cannot be used, or another run is writing to the
            output.
        RuntimeError: the lease on the output was lost.
        OSError: the output was away for longer than `stall_s`.
    """
    start = time.monotonic()
    check_association(config.tracker.association.kind, config.checkpoint)
    if config.model_gpus > torch.cuda.device_count():
        raise ValueError("model_gpus: is 1, but this machine has no GPU; give 0")
    prompts, video = _prompts(config), _video(config.video)
    results = Results(Storage(config.output))
    results.check_writable()
    model = load_light_model(config.checkpoint)
    fingerprints = Fingerprints(
        model_fingerprint=model.fingerprint,
        vocabulary_fingerprint=hashlib.sha256(json.dumps([prompt.name for prompt in prompts]).encode()).hexdigest(),
        config_fingerprint=config.fingerprint(list(map(str, prompts))),
        top=1,
    )
    with hold_lease(results.storage) as lease:
        settle(results, lease)
        if _is_done(results, video, fingerprints, overwrite=config.overwrite):
            return TrackSummary(
                video_id=video.video_id, tracks=[], frames=0, error=None, seconds=time.monotonic() - start
            )
        name = results.next_run()
        facts = {"config": asdict(config), **vars(fingerprints), "videos": 1, "wanted": 1}
        with run_report(results.storage, name, facts) as entries, registering(results, lease):
            following = Following(
                model=Model(
                    SharedCheckpoint.of(config.checkpoint, model.fingerprint),
                    device="cuda" if config.model_gpus else "cpu",
                    actors=1,
                    at_once=1,
                    threads=thread_limit(),
                    batch_size=config.batch_size,
                    precision=config.precision,
                    compile=config.compile,
                    objectness_floor=config.tracker.objectness_threshold,
                ),
                short_side=model.short_side,
                rollout_tracker=model.rollout_tracker,
                sampling=config.sampling(),
                tracker=config.tracker,
                shots=config.shots,
                segment_frames=config.segment_frames,
                cache=DownloadCache(max_bytes=int(config.download_cache_gb * 1e9)),
                limits=config.limits(),
            )
            try:
                followed = follow_prompts(video, prompts, following, report)
            except VideoError as error:
                raise ValueError(f"video: cannot read {config.video} ({error})") from error
            missing = incomplete(followed.last, len(followed.store))
            parts = PartWriter(results.storage, name, 0, 0, lease.id)
            parts.add(_rows(video, followed, fingerprints, missing), "ok")
            outlast(parts.commit, config.stall_s)
            entries |= {"frames": len(followed.store), "tracks": len(followed.tracks)}
        outlast(partial(settle, results, lease), config.stall_s)
    return TrackSummary(
        video_id=video.video_id,
        tracks=list(zip(followed.tracks, followed.prompts, strict=True)),
        frames=len(followed.store),
        error=missing,
        seconds=time.monotonic() - start,
    )


def _prompts(config: TrackConfig) -> list[Prompt]:
    """Returns the prompts of the command line, then those of the file."""
    given = [config.prompt] if isinstance(config.prompt, str) else config.prompt or []
    lines = [("prompt" if len(given) == 1 else f"prompt {number}", text) for number, text in enumerate(given, start=1)]
    if config.prompts is not None:
        storage, name = folder_of(config.prompts)
        with bad_input("prompts"), storage.read(name) as file:
            try:
                text = file.read().decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise ValueError(f"prompts: {config.prompts} is not UTF-8 text; save it as UTF-8") from error
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip() and not line.strip().startswith("#"):
                lines.append((f"{config.prompts}: line {number}", line))
    if not lines:
        raise ValueError(f"prompts: {config.prompts} has no prompts; write one per line, or give --prompt")
    return parse_prompts(lines)


def _video(source: str) -> Video:
    """Returns the only video of a source."""
    try:
        videos = list(islice(find_videos(source), 2))
    except ValueError as error:
        raise ValueError(f"video: {str(error).removeprefix('input: ')}") from error
    if len(videos) > 1:
        raise ValueError(f"video: {source} has several videos; a prompt shows an object in one, so give its file")
    return videos[0]


def _is_done(results: Results, video: Video, fingerprints: Fingerprints, *, overwrite: bool) -> bool:
    """Returns whether an output has a video with the same prompts and settings.

    Raises:
        ValueError: the output has labels of `jobs.label` or of another model, or, unless `overwrite`, other tracks of
            the video.
    """
    columns = ("video_id", *vars(fingerprints))
    output = f"output: {results.storage.root}"
    rows: list[dict[str, Any]] = [row for videos in results.scan("videos", columns) for row in videos.to_pylist()]
    for row in rows:
        if not (row["config_fingerprint"] or "").startswith(PROMPTED):
            raise ValueError(f"{output} has videos that jobs.label has labelled; choose another output")
        if row["model_fingerprint"] != fingerprints.model_fingerprint:
            raise ValueError(f"{output} has tracks of another model; choose another output")
    mine = [row for row in rows if row["video_id"] == video.video_id]
    if mine and {name: mine[0][name] for name in vars(fingerprints)} == vars(fingerprints):
        return True
    if mine and not overwrite:
        raise ValueError(
            f"{output} has tracks of {video.uri} for other prompts or settings; give all prompts and --overwrite true "
            "to replace them, or choose another output"
        )
    return False


def _rows(video: Video, followed: Followed, fingerprints: Fingerprints, error: str | None) -> Rows:
    """Returns the rows of all three tables."""
    rows, store = Rows(), followed.store
    row = video_row(
        followed.last,
        fingerprints,
        status="ok",
        error=error,
        frames=len(store),
        tracks=len(followed.tracks),
        shots=store.shots,
        model_s=store.model_s,
        tracker_s=followed.tracker_s,
    )
    rows.add("videos", [row])
    rows.add("tracks", [track_row(video.video_id, track) for track in followed.tracks])
    for masks in followed.masks(video.video_id):
        rows.add_table("masks", masks)
    return rows
