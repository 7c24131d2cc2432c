"""Options of the training stages and of validation. Imports no torch."""

from dataclasses import dataclass, field, replace
from typing import TypeVar

from openvis_model.options import AssociationConfig
from openvis_model.training.config import InstanceObjectiveConfig, StartConfig, TrackingObjectiveConfig
from pipelines.shapes.images import ShapesImagesConfig
from pipelines.training.data import TrainingDataConfig


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Videos to validate on, scored by the rules of YouTube-VIS.

    Attributes:
        annotations: file in the format of YouTube-VIS.
        videos: folder that the paths in the file are relative to; the folder of the file if not given.
        most_videos: how many videos to use, from the start of the file.
        association: how instances are linked; no match is refused.

    Raises:
        ValueError: for a number of videos below 1.
    """

    annotations: str
    videos: str | None = None
    most_videos: int = 50
    association: AssociationConfig = field(default_factory=lambda: AssociationConfig(kind="hungarian"))

    def __post_init__(self) -> None:
        if self.most_videos < 1:
            raise ValueError(f"most_videos: expected at least 1, got {self.most_videos}")


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """Image-text pre-training of the miniature CLIP on all 1,000 categories of Shapes.

    Attributes:
        start: checkpoint folder to start from; default: random weights, with the text tower fitted to words.
        images: the pictures to train on.
        decoders: processes per worker that render pictures.
        seed: seed of random weights.
    """

    start: str | None = None
    images: ShapesImagesConfig = field(default_factory=ShapesImagesConfig)
    decoders: int = 1
    seed: int = 0

    def seeded(self, seed: int) -> "PretrainingConfig":
        """Returns the settings with this number added to the seeds of weights and pictures."""
        return replace(self, seed=self.seed + seed, images=replace(self.images, seed=self.images.seed + seed))


_Stage = TypeVar("_Stage", bound="ClipStageConfig")


@dataclass(frozen=True, kw_only=True)
class ClipStageConfig:
    """Settings of both stages of the paper.

    Attributes:
        start: the model to start from.
        data: the training data: one data set, or a list of some, which are mixed by their weights.
        validation: videos for computing video AP during training; default: no validation.
        decoders: processes per worker that make clips.

    Raises:
        ValueError: there is no data set, or the clips of two differ in size or length.
    """

    start: StartConfig
    data: TrainingDataConfig | tuple[TrainingDataConfig, ...]
    validation: ValidationConfig | None = None
    decoders: int = 1

    def __post_init__(self) -> None:
        if not self.data_sets:
            raise ValueError("data: got an empty list; give at least one data set")
        for position, other in enumerate(self.data_sets):
            for name in ("frames", "height", "width"):
                first, value = getattr(self.data_sets[0], name), getattr(other, name)
                if value != first:
                    raise ValueError(
                        f"data: data set {position} has {name} {value}, but the first one {first}; "
                        "clips of a batch are alike, so give all the same"
                    )

    def seeded(self: _Stage, seed: int) -> _Stage:
        """Returns the settings with this number added to the seeds of weights and clips."""
        data = tuple(replace(each, seed=each.seed + seed) for each in self.data_sets)
        start = replace(self.start, seed=self.start.seed + seed)
        return replace(self, start=start, data=data if isinstance(self.data, tuple) else data[0])

    @property
    def data_sets(self) -> tuple[TrainingDataConfig, ...]:
        """The data sets, be it one or several."""
        return self.data if isinstance(self.data, tuple) else (self.data,)


@dataclass(frozen=True, kw_only=True)
class InstanceStageConfig(ClipStageConfig):
    """Stage 1: proposals and InstCLIP.

    Attributes:
        objective: the losses.
    """

    objective: InstanceObjectiveConfig = field(default_factory=InstanceObjectiveConfig)


@dataclass(frozen=True, kw_only=True)
class TrackingStageConfig(ClipStageConfig):
    """Stage 2: the rollout tracker.

    Attributes:
        objective: the loss.

    Raises:
        ValueError: clips of one frame, in which there is nothing to predict; or as other stages.
    """

    objective: TrackingObjectiveConfig = field(default_factory=TrackingObjectiveConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (frames := self.data_sets[0].frames) < 2:
            raise ValueError(f"data: frames: expected at least 2, since the tracker predicts the next, got {frames}")
