"""The trainable stages: a miniature CLIP, proposals with InstCLIP (stage 1), and the rollout tracker (stage 2)."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from openvis_model.clip import Clip, build_clip, build_text_encoder
from openvis_model.config import InstFormerConfig, mini
from openvis_model.inst_former import InstFormer
from openvis_model.training.captioned_image import CaptionedImage
from openvis_model.training.contrastive import ContrastiveObjective, fit_text_tower
from openvis_model.training.objectives import InstanceObjective, TrackingObjective
from openvis_model.training.start import start_model
from openvis_model.training.training_clip import TrainingClip
from openvis_model.vocabulary import prompt_words
from openvis_model.weights.checkpoint import load_checkpoint
from openvis_model.weights.pretrained import load_clip
from pipelines.shapes.categories import CATEGORIES
from pipelines.shapes.images import FRAME_SIZE, captioned_image
from pipelines.training.checks import open_training_data
from pipelines.training.loader import batches
from pipelines.training.mixture import Mixture
from pipelines.training.share import Share
from pipelines.training.stage_config import (
    ClipStageConfig,
    InstanceStageConfig,
    PretrainingConfig,
    TrackingStageConfig,
)
from pipelines.training.validation import Validation

SHAPES_NAMES = tuple(category.name for category in CATEGORIES)

_VALIDATION_IMAGES = 400
_VALIDATION_SEED = 1_000_003  # offset of the seed; no training uses these pictures


class Pretraining:
    """The miniature CLIP, as a `Stage`."""

    def __init__(self, config: PretrainingConfig) -> None:
        self.config = config

    def build(self, checkpoint: Path | None) -> ContrastiveObjective:
        """Builds the objective from its initial weights, or from a folder that it saved."""
        folder = checkpoint or self.config.start
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            if folder is not None:
                model = load_checkpoint(folder).config
                clip = load_clip(model.clip, folder)
            else:
                model = mini(prompt_words(SHAPES_NAMES))
                clip = _fitted(model, self.config.seed)
            return ContrastiveObjective(model, clip, SHAPES_NAMES, FRAME_SIZE).train()

    def batches(self, share: Share) -> Iterator[list[CaptionedImage]]:
        """Yields pictures, rendered on the fly."""
        return batches(partial(captioned_image, self.config.images), share, decoders=self.config.decoders)

    @property
    def validates(self) -> bool:
        """True: pictures are rendered."""
        return True

    def validate(self, objective: ContrastiveObjective, rank: int, world_size: int) -> dict[str, float]:
        """Computes how often the nearest of all names is the caption, on held-out pictures."""
        held_out = replace(self.config.images, seed=self.config.images.seed + _VALIDATION_SEED)
        images = [captioned_image(held_out, number) for number in range(_VALIDATION_IMAGES)]
        return {"top-1": objective.top1(images)} if rank == 0 else {}

    def fingerprint(self) -> str:
        """Returns a hash of the settings and the initial weights."""
        return _fingerprint(asdict(replace(self.config, decoders=0)), self.config.start)


class _ClipStage:
    """The common part of both stages of the paper.

    Raises:
        ValueError: the data cannot be used for training or validation.
    """

    def __init__(self, config: ClipStageConfig) -> None:
        self.common = config
        self.mixture = Mixture.of([open_training_data(data) for data in config.data_sets])
        self.validation = Validation(config.validation) if config.validation else None

    def batches(self, share: Share) -> Iterator[list[TrainingClip]]:
        """Yields clips of the data sets."""
        return batches(self.mixture.sample, share, decoders=self.common.decoders)

    @property
    def validates(self) -> bool:
        """Whether there are videos to validate on."""
        return self.validation is not None

    def validate(
        self, objective: InstanceObjective | TrackingObjective, rank: int, world_size: int
    ) -> dict[str, float]:
        """Computes video AP."""
        return self.validation(objective.model, rank=rank, world_size=world_size) if self.validation else {}

    def fingerprint(self) -> str:
        """Returns a hash of the settings, the annotations and the initial weights, without validation and decoders."""
        values = asdict(replace(self.common, decoders=0, validation=None))
        values["annotations"] = [data.sha256 for data in self.mixture.data_sets]
        start = self.common.start
        return _fingerprint(values, start.checkpoint, start.clip, start.mask_proposal)

    def _model(self, checkpoint: Path | None) -> InstFormer:
        return load_checkpoint(checkpoint) if checkpoint else start_model(self.common.start, SHAPES_NAMES)


class InstanceStage(_ClipStage):
    """Stage 1, as a `Stage`."""

    def __init__(self, config: InstanceStageConfig) -> None:
        super().__init__(config)
        self.config = config

    def build(self, checkpoint: Path | None) -> InstanceObjective:
        """Builds the objective from its initial weights, or from a folder that it saved."""
        return InstanceObjective(self._model(checkpoint), self.mixture.names, self.config.objective).train()


class TrackingStage(_ClipStage):
    """Stage 2, as a `Stage`."""

    def __init__(self, config: TrackingStageConfig) -> None:
        super().__init__(config)
        self.config = config

    def build(self, checkpoint: Path | None) -> TrackingObjective:
        """Builds the objective from its initial weights, or from a folder that it saved."""
        return TrackingObjective(self._model(checkpoint), self.config.objective).train()


def _fitted(config: InstFormerConfig, seed: int) -> Clip:
    clip = build_clip(config.clip)
    fit_text_tower(build_text_encoder(config.clip, clip), SHAPES_NAMES, seed=seed)
    return clip


def _fingerprint(values: dict[str, Any], *weights: str | None) -> str:
    """Hashes settings and initial weights."""
    stored = [_hashed(Path(path)) for path in weights if path]
    return hashlib.sha256(json.dumps([values, stored], sort_keys=True, default=str).encode()).hexdigest()


def _hashed(path: Path) -> Any:
    """Returns the fingerprint of a checkpoint, or the hashes of other files; None for a tag of `open_clip`."""
    if (file := path / "config.json").is_file() and (known := json.loads(file.read_text()).get("fingerprint")):
        return known
    if path.is_dir():
        return {child.name: _hashed(child) for child in sorted(path.iterdir())}
    if not path.is_file():
        return None
    return _digest(path, path.stat().st_mtime_ns)


@cache
def _digest(path: Path, changed_ns: int) -> str:
    """Returns the hash of a file; each checkpoint asks for it again."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
