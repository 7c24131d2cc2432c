"""Follows objects that reviewers show on the page, in the background, with the settings that the labels have."""

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from openvis_model.options import Shots, VideoTrackerConfig
from openvis_model.prompts import Prompt
from pipelines.labelling.config import LabelConfig, Precision
from pipelines.review.decided import Row
from pipelines.review.images import Recent
from pipelines.storage.files import Storage
from pipelines.video.download_cache import DownloadCache
from pipelines.video.options import Limits, Sampling
from pipelines.video.sources import Video

if TYPE_CHECKING:
    from openvis_model.weights.light_model import LightModel
    from pipelines.labelling.model_operator import Model

FOLLOWED_ID = 999_999
"""Id under which the page shows a track that nobody has kept yet."""

_KEPT = 16  # results that can still be looked at


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the tracks of labels depend on, besides the model; fields of `LabelConfig`."""

    fps: float | None = LabelConfig.fps
    stride: int = LabelConfig.stride
    tracker: VideoTrackerConfig = field(default_factory=VideoTrackerConfig)
    shots: Shots = LabelConfig.shots
    precision: Precision = LabelConfig.precision


@dataclass(kw_only=True, eq=False)
class Job:
    """An object that is being followed, or was.

    Attributes:
        video: the row of its video in `videos`.
        prompt: what shows the object.
        done: frames looked at.
        total: frames to look at; 0 until that is known.
        error: why it cannot be followed; None if it can.
        unwanted: whether nobody waits for it any more.
        track: the row of `tracks`, with the id `FOLLOWED_ID`; None until the end.
        masks: its rows of `masks`.
        kept: id of the track under which it was stored; None if it was not.
    """

    video: Row
    prompt: Prompt
    done: int = 0
    total: int = 0
    error: str | None = None
    unwanted: bool = False
    track: Row | None = None
    masks: pa.Table | None = None
    kept: int | None = None

    def state(self) -> Row:
        """Returns what the page shows of it."""
        track = self.track and {"track_id": FOLLOWED_ID, "frames": self.track["frames"]}
        return {"done": self.done, "total": self.total, "error": self.error, "track": track}


class _UnwantedError(Exception):
    """Nobody waits for what is being followed."""


class Follower:
    """Follows one object after the other. Methods may be called by several threads.

    Args:
        storage: the archive.
        checkpoint: of the model that labelled the videos; None is the built-in model.
    """

    def __init__(self, storage: Storage, checkpoint: str | None) -> None:
        self._storage, self._checkpoint = storage, checkpoint
        self._thread = ThreadPoolExecutor(1, "follower")
        self._jobs: Recent[str, Job] = Recent(_KEPT)
        self._light: LightModel | None = None
        self._model: tuple[Settings, Model] | None = None

    def start(self, video: Row, prompt: Prompt) -> str:
        """Begins to follow what a prompt shows in a video; returns an id of the job."""
        job, name = Job(video=video, prompt=prompt), uuid.uuid4().hex
        self._jobs.get(name, lambda: job)
        self._thread.submit(self._run, job)
        return name

    def job(self, name: str, absent: Callable[[], Job]) -> Job:
        """Returns a job; what `absent` returns or raises if none of this id is known."""
        return self._jobs.get(name, absent)

    def _run(self, job: Job) -> None:
        try:
            self._follow(job)
        except _UnwantedError:
            job.error = "it was cancelled"
        except (ValueError, OSError, RuntimeError) as error:
            job.error = str(error)
        except Exception as error:  # the page would wait for ever
            job.error = f"following failed: {error!r}"

    def _follow(self, job: Job) -> None:
        from pipelines.following.follow import Following, follow_prompts  # imports torch
        from pipelines.labelling.video_writer import track_row
        from pipelines.models import load_light_model

        if job.unwanted:
            raise _UnwantedError
        settings = read_settings(self._storage, job.video["config_fingerprint"])
        self._light = self._light or load_light_model(self._checkpoint)
        if self._light.fingerprint != job.video["model_fingerprint"]:
            raise ValueError("the video was labelled with another model than the checkpoint that the review was given")
        following = Following(
            model=self._loaded(settings, self._light.fingerprint),
            short_side=self._light.short_side,
            rollout_tracker=self._light.rollout_tracker,
            sampling=Sampling(fps=settings.fps, stride=settings.stride),
            tracker=settings.tracker,
            shots=settings.shots,
            segment_frames=LabelConfig.segment_frames,
            cache=DownloadCache(),
            limits=Limits(),
        )

        def report(done: int, total: int) -> None:
            job.done, job.total = done, total
            if job.unwanted:
                raise _UnwantedError

        video = Video(video_id=job.video["video_id"], uri=job.video["uri"])
        followed = follow_prompts(video, [job.prompt], following, report)
        masks = pa.concat_tables(followed.masks(video.video_id))
        ids = pa.array([FOLLOWED_ID] * masks.num_rows, pa.int32())
        job.masks = masks.set_column(masks.schema.get_field_index("track_id"), "track_id", ids)
        job.track = {**track_row(video.video_id, followed.tracks[0]), "track_id": FOLLOWED_ID}

    def _loaded(self, settings: Settings, fingerprint: str) -> "Model":
        import torch

        from pipelines.cluster.nodes import thread_limit
        from pipelines.labelling.checkpoint_copy import SharedCheckpoint
        from pipelines.labelling.model_operator import Model

        if self._model is None or self._model[0] != settings:
            model = Model(
                SharedCheckpoint.of(self._checkpoint, fingerprint),
                device="cuda" if torch.cuda.is_available() else "cpu",
                actors=1,
                at_once=1,
                threads=thread_limit(),
                batch_size=LabelConfig.batch_size,
                precision=settings.precision,
                compile=False,
                objectness_floor=settings.tracker.objectness_threshold,
            )
            self._model = settings, model
        return self._model[1]


def read_settings(storage: Storage, config_fingerprint: str) -> Settings:
    """Returns the settings of some labels, as the reports of the runs say.

    Raises:
        ValueError: no run was made with them, as in an archive that was relabelled.
    """
    from pydantic import TypeAdapter

    for path in sorted(storage.list("runs"), reverse=True):
        try:
            report = json.loads(storage.read_bytes(path) or b"{}")
        except ValueError:
            continue
        if report.get("config_fingerprint") == config_fingerprint:
            given = {name: value for name, value in report["config"].items() if name in Settings.__dataclass_fields__}
            return TypeAdapter(Settings).validate_python(given)
    raise ValueError(
        "no run in this archive says with which settings the video was labelled, as where labels were renamed; follow "
        "the object where it was labelled, or with jobs.track"
    )
