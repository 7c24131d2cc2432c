"""Loads the text encoder of a checkpoint, without building the rest of the model."""

from pathlib import Path
from typing import Any

from openvis_model.text_encoder import TextEncoder, TextTowerConfig
from openvis_model.tokenizer import Tokenizer, WordTokenizer
from openvis_model.weights.files import BUILT_IN, check_fingerprint, read_config, read_states, weight_files


def load_text_encoder(checkpoint: str | Path | None = None) -> tuple[TextEncoder, str]:
    """Loads the text encoder of a checkpoint folder, or the built-in model's, and the fingerprint of the whole model.

    All weights are read, because the fingerprint covers them.

    Raises:
        ValueError: for a missing or damaged file, or weights that do not match the fingerprint.
    """
    folder = Path(BUILT_IN if checkpoint is None else checkpoint)
    config, expected = read_config(folder)
    try:
        names, clip = weight_files(config["classifier"]), config["clip"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder}/config.json: {error!r} is missing; copy the whole folder again") from error
    states = read_states(folder, names)
    check_fingerprint(folder, config, states, expected)
    architecture, tokenizer = _words(clip) if clip["words"] else _byte_pairs(clip)
    encoder = TextEncoder(TextTowerConfig.of(architecture), tokenizer, states["clip"])
    return encoder.eval(), expected


def _words(clip: dict[str, Any]) -> tuple[dict[str, Any], Tokenizer]:
    architecture: dict[str, Any] = clip["architecture"]
    return architecture, WordTokenizer(clip["words"], TextTowerConfig.of(architecture).context_length)


def _byte_pairs(clip: dict[str, Any]) -> tuple[dict[str, Any], Tokenizer]:
    from openvis_model.clip import ClipConfig, architecture_of, build_tokenizer  # open_clip has sizes and tokenizer

    config = ClipConfig(model=clip["model"], architecture=clip["architecture"])
    architecture = architecture_of(config)
    return architecture, build_tokenizer(config, TextTowerConfig.of(architecture).context_length)
