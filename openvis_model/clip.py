"""CLIP from `open_clip`: its config, the model, its text encoder."""

import difflib
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import open_clip
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, CLIPTextCfg, CLIPVisionCfg

from openvis_model.convolutional_stem import ConvolutionalStem
from openvis_model.text_encoder import TextEncoder
from openvis_model.tokenizer import Tokenizer, WordTokenizer
from openvis_model.towers import TextTowerConfig

Stem = Literal["patches", "convolutional"]

ARCHITECTURE = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale")
"""Fields that describe a plain CLIP; some models of `open_clip` have more."""


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """The CLIP that InstCLIP is built on.

    Attributes:
        model: name of an `open_clip` model. OpenAI's weights need the `-quickgelu` variant.
        architecture: description of a model that `open_clip` has no name for (embed_dim, vision_cfg, text_cfg, …).
        stem: how pixels become tokens: `patches` is CLIP's linear projection of each patch; `convolutional` is a small
            residual network, which lets a small CLIP learn from few images.
        words: words that a CLIP with its own tokenizer was trained with; empty for CLIP's byte-pair encoding.
        pixel_mean: mean RGB, in [0, 1], that the weights were trained with.
        pixel_std: standard deviation of RGB, in [0, 1], that the weights were trained with.

    Raises:
        ValueError: for a model or a field of the architecture that `open_clip` does not have, or words whose number
            does not match the size of the embedding table.
    """

    model: str = ""
    architecture: dict[str, Any] = field(default_factory=dict)
    stem: Stem = "patches"
    words: tuple[str, ...] = ()
    pixel_mean: tuple[float, float, float] = OPENAI_DATASET_MEAN
    pixel_std: tuple[float, float, float] = OPENAI_DATASET_STD

    def __post_init__(self) -> None:
        if bool(self.model) == bool(self.architecture):
            raise ValueError(
                f"clip: give either model or architecture, got model={self.model!r} and "
                f"{'an' if self.architecture else 'no'} architecture"
            )
        if self.model and self.model not in open_clip.list_models():
            raise ValueError(f"clip.model: open_clip has no model {self.model!r}; see open_clip.list_models()")
        check_names(self.architecture, ARCHITECTURE, "clip.architecture")
        for part, kind in (("vision_cfg", CLIPVisionCfg), ("text_cfg", CLIPTextCfg)):
            check_names(self.architecture.get(part, {}), [f.name for f in fields(kind)], f"clip.architecture.{part}")
        if self.stem not in get_args(Stem):
            raise ValueError(f"clip.stem: unknown value {self.stem!r}; choose from {get_args(Stem)}")
        words: object = self.words
        if isinstance(words, str):
            raise ValueError(f"clip.words: expected several words, got the text {self.words!r}; give a tuple of words")
        size = self.architecture.get("text_cfg", {}).get("vocab_size")
        if self.words and size != WordTokenizer.vocabulary_size(self.words):
            raise ValueError(
                f"clip.words: {len(self.words)} words need architecture.text_cfg.vocab_size = "
                f"{WordTokenizer.vocabulary_size(self.words)}, got {size}"
            )


def check_names(values: Any, known: Collection[str], name: str) -> None:
    """Checks that values are fields with known names.

    Raises:
        ValueError: names the first unknown field and the known name nearest to it.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{name}: expected fields, got {values!r}")
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            remedy = f"did you mean {close[0]!r}?" if close else "remove it"
            raise ValueError(f"{name}.{key}: no such field; {remedy} (its value is {values[key]!r})")


def architecture_of(config: ClipConfig) -> dict[str, Any]:
    """Returns the architecture that the config gives, or that open_clip knows under its name."""
    architecture: dict[str, Any] = config.architecture or open_clip.get_model_config(config.model)
    return architecture


def build_clip(config: ClipConfig) -> open_clip.CLIP:
    """Builds a CLIP with random weights.

    Raises:
        ValueError: if the model is not a plain CLIP, for example because its text tower comes from another library.
    """
    architecture = architecture_of(config)
    if extra := sorted(set(architecture) - set(ARCHITECTURE)):
        raise ValueError(
            f"clip: {config.model or 'architecture'} is not a plain CLIP, it has {', '.join(extra)}; use e.g. ViT-B-32"
        )
    clip = open_clip.CLIP(**architecture)
    if config.stem == "convolutional":
        clip.visual.conv1 = ConvolutionalStem(clip.visual.conv1.out_channels, patch_size=clip.visual.patch_size[0])
    clip.visual.image_mean, clip.visual.image_std = config.pixel_mean, config.pixel_std
    return clip


def build_text_encoder(config: ClipConfig, clip: open_clip.CLIP) -> TextEncoder:
    """Builds the text encoder of a CLIP; the two share their parameters.

    Raises:
        ValueError: for a text tower that is not CLIP's.
    """
    tower = TextTowerConfig.of(architecture_of(config))
    return TextEncoder(tower, build_tokenizer(config, tower.context_length), clip.state_dict(keep_vars=True))


def build_tokenizer(config: ClipConfig, context_length: int) -> Tokenizer:
    """Builds the tokenizer of a CLIP."""
    if config.words:
        return WordTokenizer(config.words, context_length)
    tokenizer: Tokenizer = open_clip.SimpleTokenizer(context_length=context_length)
    return tokenizer
