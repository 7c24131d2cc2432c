"""Loads the parts of a checkpoint that never see pixels, without the libraries of the networks that do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openvis_model.options import InstClipConfig, RolloutTrackerConfig
from openvis_model.rollout_tracker import RolloutTracker
from openvis_model.text_encoder import TextEncoder, TextTowerConfig
from openvis_model.tokenizer import Tokenizer, WordTokenizer
from openvis_model.weights.files import (
    BUILT_IN,
    check_adapter_config,
    check_fingerprint,
    read_config,
    read_states,
    weight_files,
)
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
    folder = Path(BUILT_IN if checkpoint is None else checkpoint)
    config, fingerprint = read_config(folder)
    try:
        names, clip, short_side = weight_files(config["classifier"]), config["clip"], config["short_side"]
        inst_clip, rollout = InstClipConfig(**config["inst_clip"]), RolloutTrackerConfig(**config["rollout_tracker"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder}/config.json: {error!r} is missing; copy the whole folder again") from error
    states = read_states(folder, names)
    check_fingerprint(folder, config, states, fingerprint)
    if config["classifier"] == "inst_clip":
        check_adapter_config(folder, inst_clip)
    architecture, tokenizer = _words(clip) if clip["words"] else _byte_pairs(clip)
    encoder = TextEncoder(TextTowerConfig.of(architecture), tokenizer, states["clip"])
    state = states["rollout_tracker"]
    tracker = RolloutTracker(rollout, width=next(tensor.shape[1] for tensor in state.values() if tensor.ndim == 2))
    load_strictly(tracker, state, source=f"{folder}/rollout_tracker.safetensors")
    return LightModel(encoder.eval(), tracker.eval(), short_side, fingerprint)


def _words(clip: dict[str, Any]) -> tuple[dict[str, Any], Tokenizer]:
    architecture: dict[str, Any] = clip["architecture"]
    return architecture, WordTokenizer(clip["words"], TextTowerConfig.of(architecture).context_length)


def _byte_pairs(clip: dict[str, Any]) -> tuple[dict[str, Any], Tokenizer]:
    from openvis_model.clip import ClipConfig, architecture_of, build_tokenizer  # open_clip has sizes and tokenizer

    config = ClipConfig(model=clip["model"], architecture=clip["architecture"])
    architecture = architecture_of(config)
    return architecture, build_tokenizer(config, TextTowerConfig.of(architecture).context_length)
