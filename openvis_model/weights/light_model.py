"""Loads the parts of a checkpoint that never see pixels, without the libraries of the networks that do."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openvis_model.options import RolloutTrackerConfig
from openvis_model.rollout_tracker import RolloutTracker
from openvis_model.text_encoder import TextEncoder
from openvis_model.tokenizer import Tokenizer, WordTokenizer
from openvis_model.towers import TextTowerConfig
from openvis_model.weights.files import BUILT_IN, TOKENIZER, Stored, read_checkpoint
from openvis_model.weights.state_dicts import load_strictly


@dataclass(frozen=True)
class LightModel:
    """What names and tracks instances; finding them needs the whole model.

    Attributes:
        text_encoder: CLIP's text encoder.
        rollout_tracker: predicts tracking tokens.
        short_side: shorter side of the frames as the whole model sees them, pixels.
        fingerprint: hash of the whole model.
    """

    text_encoder: TextEncoder
    rollout_tracker: RolloutTracker
    short_side: int
    fingerprint: str


def load_light_model(checkpoint: str | Path | None = None) -> LightModel:
    """Loads the light model of a checkpoint folder, or the built-in one.

    All weights are read, because the fingerprint covers them.

    Raises:
        ValueError: for a missing or damaged file, or weights that do not match the fingerprint.
    """
    return build_light_model(read_checkpoint(Path(BUILT_IN if checkpoint is None else checkpoint)))


def build_light_model(stored: Stored) -> LightModel:
    """Builds the light model of a checkpoint that has been read.

    Raises:
        ValueError: names what is wrong with the checkpoint.
    """
    clip = stored.config["clip"]
    architecture = architecture_of(clip)
    tower = TextTowerConfig.of(architecture)
    encoder = TextEncoder(tower, _tokenizer(stored, tower.context_length), stored.states["clip"])
    state = stored.states["rollout_tracker"]
    width = next(tensor.shape[1] for tensor in state.values() if tensor.ndim == 2)
    tracker = RolloutTracker(RolloutTrackerConfig(**stored.config["rollout_tracker"]), width=width)
    load_strictly(tracker, state, source=f"{stored.folder}/rollout_tracker.safetensors")
    return LightModel(encoder.eval(), tracker.eval(), stored.config["short_side"], stored.fingerprint)


def architecture_of(clip: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the sizes of a CLIP, under open_clip's names, from its config as plain values."""
    if clip["architecture"]:
        architecture: Mapping[str, Any] = clip["architecture"]
        return architecture
    from openvis_model.clip import ClipConfig, architecture_of  # open_clip knows them by its model's name

    return architecture_of(ClipConfig(model=clip["model"]))


def _tokenizer(stored: Stored, context_length: int) -> Tokenizer:
    clip = stored.config["clip"]
    if clip["words"]:
        return WordTokenizer(clip["words"], context_length)
    from openvis_model.clip import ClipConfig, build_tokenizer  # open_clip has CLIP's byte-pair encoding

    config = ClipConfig(model=clip["model"], architecture=clip["architecture"])
    return build_tokenizer(config, stored.states.get(TOKENIZER))
