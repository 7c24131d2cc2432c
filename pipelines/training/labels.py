"""Labels of an archive as training data, as reviewers decided about them; frames come from the labelled videos."""

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.archive.config import ExportConfig
from pipelines.archive.export import export_annotations
from pipelines.datasets import ytvis
from pipelines.datasets.annotations import AnnotatedVideo, GroundTruth
from pipelines.training.data import TrainingDataConfig, TrainingVideo
from pipelines.video.download_cache import DownloadCache
from pipelines.video.index import plan_video
from pipelines.video.names import local_path
from pipelines.video.options import Sampling
from pipelines.video.plan import MachineError, VideoError

_LOG = logging.getLogger(__name__)


def read_labels(config: TrainingDataConfig, problems: list[str]) -> GroundTruth:
    """Reads the labels that `jobs.export` would write, without the videos that are shorter than a clip.

    Args:
        config: the data set; `annotations` is the archive.
        problems: list that collects what is wrong.

    Raises:
        ValueError: there are no labels, or, of reviewed ones, no decisions.
    """
    with tempfile.TemporaryDirectory(prefix="openvis-train-") as folder:
        export = ExportConfig(labels=config.annotations, output=folder, format="youtube_vis", reviewed=config.reviewed)
        try:
            export_annotations(export)
        except ValueError as error:
            raise ValueError(f"annotations: {str(error).removeprefix('labels: ')}") from error
        path = str(Path(folder, "annotations.json"))
        truth = replace(ytvis.read_ground_truth(path, strict=True, problems=problems), path=config.annotations)
    long = {video.id for video in truth.videos if len(video.frames) >= config.frames}
    if short := len(truth.videos) - len(long):
        _LOG.warning("%s: %d videos have fewer labelled frames than a clip; they are left out", truth.path, short)
    return replace(
        truth,
        videos=tuple(video for video in truth.videos if video.id in long),
        tracks=tuple(track for track in truth.tracks if track.video_id in long),
    )


def labelled_video(video: AnnotatedVideo) -> TrainingVideo:
    """Returns a labelled video, of which the labelled frames are trained on.

    Raises:
        VideoError: it is missing, cannot be read, or has another size or fewer frames than were labelled; says why.
    """
    uri, cache = local_path(video.uri or ""), DownloadCache()
    try:
        version = cache.version(uri)
        with cache.open(uri, version) as path:
            plan = plan_video(path, Sampling(), 1)
    except MachineError as error:
        raise VideoError(str(error)) from error
    info, frames = plan.info, np.array(video.frames, np.int64)
    if (info.height, info.width) != (video.height, video.width) or frames[-1] >= info.frames:
        raise VideoError(
            f"has {info.frames} frames of {info.height} x {info.width}, but frame {frames[-1]} of "
            f"{video.height} x {video.width} was labelled; label it again"
        )
    return TrainingVideo(
        id=video.id,
        height=video.height,
        width=video.width,
        length=len(frames),
        files=(uri,),
        version=version,
        plan=plan,
        frames=frames,
        federation=video.federation,
    )
