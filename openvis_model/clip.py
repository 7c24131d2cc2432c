"""CLIP from `open_clip`: its config, the model, its text encoder."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias, get_args

import open_clip
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

from openvis_model.convolutional_stem import ConvolutionalStem
from openvis_model.hub_tokenizer import HubTokenizer
from openvis_model.text_encoder import TextEncoder
from openvis_model.tokenizer import Tokenizer, WordTokenizer
from openvis_model.towers import TextTowerConfig, VisionTowerConfig, is_timm

Clip: TypeAlias = open_clip.CLIP | open_clip.CustomTextCLIP

Stem = Literal["patches", "convolutional"]

ARCHITECTURE = (
    *("embed_dim", "vision_cfg", "text_cfg", "quick_gelu"),
    *("init_logit_scale", "init_logit_bias", "custom_text"),
)
"""Fields that describe a CLIP; some models of `open_clip` have more."""


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """The CLIP that InstCLIP is built on.

    Attributes:
        model: name of an `open_clip` model. OpenAI's weights need the `-quickgelu` variant.
        architecture: description of a model that `open_clip` has no name for (embed_dim, vision_cfg, text_cfg, …).
        stem: how pixels become tokens: `patches` is CLIP's linear projection of each patch; `convolutional` is a small
            residual network, which lets a small CLIP learn from few images.
        words: words that a CLIP with its own tokenizer was trained with; empty for CLIP's byte-pair encoding.
        picture_size: side of the pictures that a vision transformer of CLIP's own kind was trained with, pixels, if
            they were smaller than the square of its positions. None is `image_size`, the side of that square.
        pixel_mean: mean RGB, in [0, 1], that the weights were trained with. None takes that of all weights which
            open_clip lists for the model, or OpenAI's if they differ.
        pixel_std: standard deviation of RGB, in the same scale.

    Raises:
        ValueError: for a model or a field of the architecture that `open_clip` does not have, words whose number does
            not match the size of the embedding table, or pictures that the positions do not cover.
    """

    model: str = ""
    architecture: dict[str, Any] = field(default_factory=dict)
    stem: Stem = "patches"
    words: tuple[str, ...] = ()
    picture_size: int | None = None
    pixel_mean: tuple[float, float, float] | None = None
    pixel_std: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if bool(self.model) == bool(self.architecture):
            raise ValueError(
                f"clip: give either model or architecture, got model={self.model!r} and "
                f"{'an' if self.architecture else 'no'} architecture"
            )
        if self.model and self.model not in open_clip.list_models():
            hint = nearest(self.model, open_clip.list_models()) or "see open_clip.list_models()"
            raise ValueError(f"clip.model: open_clip has no model {self.model!r}; {hint}")
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
        if self.picture_size is not None:
            tower = VisionTowerConfig.of(architecture_of(self))
            if self.picture_size % tower.patch_size or not 0 < self.picture_size <= tower.image_size:
                raise ValueError(
                    f"clip.picture_size: expected a multiple of {tower.patch_size} up to {tower.image_size} pixels, "
                    f"got {self.picture_size}"
                )
        for name, default in (("mean", OPENAI_DATASET_MEAN), ("std", OPENAI_DATASET_STD)):
            if getattr(self, f"pixel_{name}") is None:
                object.__setattr__(self, f"pixel_{name}", _pixels_of(self.model, name, default))


def check_names(values: Any, known: Collection[str], name: str) -> None:
    """Checks that values are fields with known names.

    Raises:
        ValueError: names the first unknown field and the known name nearest to it.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{name}: expected fields, got {values!r}")
    for key in values:
        if key not in known:
            remedy = nearest(str(key), known) or "remove it"
            raise ValueError(f"{name}.{key}: no such field; {remedy} (its value is {values[key]!r})")


def nearest(name: str, known: Collection[str]) -> str:
    """Returns a question for the known name that is nearest to another one; nothing if none is near."""
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f"did you mean {by_lower[near[0]]!r}?" if near else ""


def architecture_of(config: ClipConfig) -> dict[str, Any]:
    """Returns the architecture that the config gives, or that open_clip knows under its name."""
    architecture: dict[str, Any] = config.architecture or open_clip.get_model_config(config.model)
    return architecture


def build_clip(config: ClipConfig) -> Clip:
    """Builds a CLIP with random weights.

    Raises:
        ValueError: if the model is not a CLIP, or a convolutional stem is to be that of no vision transformer.
    """
    architecture = dict(architecture_of(config))
    if extra := sorted(set(architecture) - set(ARCHITECTURE)):
        raise ValueError(
            f"clip: {config.model or 'architecture'} is not a plain CLIP, it has {', '.join(extra)}; use e.g. ViT-B-32"
        )
    kind = open_clip.CustomTextCLIP if architecture.pop("custom_text", False) else open_clip.CLIP
    clip: Clip = kind(**architecture)
    if config.stem == "convolutional":
        from openvis_model.clip_towers import guided_tower  # needs peft, which reading texts does not

        tower = guided_tower(clip.visual)
        stem = ConvolutionalStem(tower.positions.shape[-1], patch_size=tower.patch_size)
        clip.visual.set_submodule(tower.stem_name, stem)
    clip.visual.image_mean, clip.visual.image_std = config.pixel_mean, config.pixel_std
    clip.visual.picture_size = config.picture_size
    return clip


def check_vision_tower(config: ClipConfig) -> None:
    """Checks the description of a vision transformer that is open_clip's own; timm describes the others.

    Raises:
        ValueError: names a field that a plain one does not have.
    """
    architecture = architecture_of(config)
    if not is_timm(architecture):
        VisionTowerConfig.of(architecture)


def build_text_encoder(config: ClipConfig, clip: Clip, tokenizer: Tokenizer | None = None) -> TextEncoder:
    """Builds the text encoder of a CLIP; the two share their parameters.

    Args:
        config: the CLIP's config.
        clip: the CLIP.
        tokenizer: its tokenizer, if there is one already.

    Raises:
        ValueError: for a text tower that is neither CLIP's nor SigLIP's, or a tokenizer whose files are missing.
    """
    tower = TextTowerConfig.of(architecture_of(config))
    return TextEncoder(tower, tokenizer or build_tokenizer(config), clip.state_dict(keep_vars=True))


def build_tokenizer(config: ClipConfig, files: Mapping[str, Tensor] | None = None) -> Tokenizer:
    """Builds the tokenizer of a CLIP.

    Args:
        config: the CLIP's config.
        files: those of a tokenizer of the Hugging Face hub, by name; None fetches them, unless they are in its cache.

    Raises:
        ValueError: for files that are missing.
    """
    architecture = architecture_of(config)
    text, context_length = architecture.get("text_cfg", {}), TextTowerConfig.of(architecture).context_length
    if config.words:
        return WordTokenizer(config.words, context_length)
    if files:
        return HubTokenizer.of_files(files, text, context_length)
    if name := text.get("hf_tokenizer_name"):
        return HubTokenizer(name, text, context_length)
    tokenizer: Tokenizer = open_clip.SimpleTokenizer(context_length=context_length)
    return tokenizer


def _pixels_of(model: str, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """Returns the mean or std of all weights of a model, or the default if they differ or there are none."""
    tags = open_clip.list_pretrained_tags_by_model(model) if model else []
    listed = {tuple(open_clip.get_pretrained_cfg(model, tag)[name]) for tag in tags}
    return listed.pop() if len(listed) == 1 else default
