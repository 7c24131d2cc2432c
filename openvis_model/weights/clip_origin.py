"""How the weights of a CLIP were trained: with which activation, on which pixels.

Neither leaves a trace in names or shapes: a CLIP with the wrong ones loads, and is merely worse. So each source of
weights has to tell, or else the user.
"""

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

from openvis_model.clip import ClipConfig, architecture_of
from openvis_model.config import InstFormerConfig
from openvis_model.weights.files import read_config

Pixels = tuple[float, float, float]

HUB_CONFIG = "open_clip_config.json"
"""What the hub calls the description of a CLIP, beside its weights."""

OPENAI_ENTRIES = frozenset({"input_resolution", "context_length", "vocab_size"})
"""Numbers that OpenAI's files hold beside the weights; nobody else's have them."""

_CHECKSUM = re.compile(r"/([0-9a-f]{64})/[^/]+$|-([0-9a-f]{8})\.pth?$")
"""Where open_clip's addresses hold the SHA-256 of a file, or its beginning."""


@dataclass(frozen=True, kw_only=True)
class ClipOrigin:
    """How weights were trained.

    Attributes:
        evidence: how this is known, for messages.
        quick_gelu: whether with OpenAI's activation, QuickGELU.
        pixel_mean: mean RGB, in [0, 1]; None if that is not known.
        pixel_std: standard deviation of RGB, in [0, 1]; None if that is not known.
    """

    evidence: str
    quick_gelu: bool
    pixel_mean: Pixels | None = None
    pixel_std: Pixels | None = None

    def check(self, config: ClipConfig, weights: str, quick_gelu: bool | None = None) -> None:
        """Checks that the config, and what the user says of the activation, fit the weights.

        Raises:
            ValueError: names the field that does not.
        """
        if quick_gelu not in (None, self.quick_gelu):
            raise ValueError(
                f"quick_gelu: got {quick_gelu}, but weights {weights!r} were trained {_with(self.quick_gelu)} "
                f"QuickGELU ({self.evidence}); leave quick_gelu out"
            )
        if self.quick_gelu != bool(architecture_of(config).get("quick_gelu")):
            field = "model" if config.model else "architecture.quick_gelu"
            raise ValueError(
                f"clip.{field}: weights {weights!r} were trained {_with(self.quick_gelu)} QuickGELU ({self.evidence}), "
                f"the model is {_with(not self.quick_gelu)} it; {_remedy(config, self.quick_gelu)}"
            )
        for name in ("pixel_mean", "pixel_std"):
            needed, given = getattr(self, name), getattr(config, name)
            if needed not in (None, given):
                raise ValueError(f"clip.{name}: weights {weights!r} need {needed} ({self.evidence}), got {given}")


def origin_of_tag(tag: dict[str, Any]) -> ClipOrigin:
    """Returns what `open_clip` knows of weights that it can download."""
    return ClipOrigin(
        evidence="as open_clip says",
        quick_gelu=bool(tag.get("quick_gelu")),
        pixel_mean=_pixels(tag.get("mean")),
        pixel_std=_pixels(tag.get("std")),
    )


def origin_of_checkpoint(folder: Path) -> ClipOrigin:
    """Returns what a checkpoint folder says of its CLIP.

    Raises:
        ValueError: names the file and the problem.
    """
    clip = clip_of_checkpoint(folder)
    return ClipOrigin(
        evidence=f"as {folder / 'config.json'} says",
        quick_gelu=bool(architecture_of(clip).get("quick_gelu")),
        pixel_mean=clip.pixel_mean,
        pixel_std=clip.pixel_std,
    )


def clip_of_checkpoint(folder: Path) -> ClipConfig:
    """Returns the CLIP of a checkpoint folder.

    Raises:
        ValueError: names the file and the problem.
    """
    values, _ = read_config(folder)
    try:
        return InstFormerConfig.from_dict(values).clip
    except ValueError as error:
        raise ValueError(f"{folder}/config.json: {error}") from error


def clip_of_hub(file: Path) -> ClipConfig:
    """Returns the CLIP that an `open_clip_config.json` describes.

    Raises:
        ValueError: for a file that cannot be read, or a CLIP that is not a plain one; names it.
    """
    model, mean, std = _hub_config(file)
    try:
        config = ClipConfig(architecture=model)
        return replace(config, pixel_mean=mean or config.pixel_mean, pixel_std=std or config.pixel_std)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def clip_of_tag(model: str, tag: str) -> ClipConfig:
    """Returns the CLIP of a tag of open_clip, for the pixels that it was trained on.

    Raises:
        ValueError: for a model that open_clip does not have.
    """
    config = ClipConfig(model=model)
    pixels = origin_of_tag(open_clip.get_pretrained_cfg(model, tag))
    return replace(
        config,
        pixel_mean=pixels.pixel_mean or config.pixel_mean,
        pixel_std=pixels.pixel_std or config.pixel_std,
    )


def origin_of_file(file: Path, names: Collection[str], quick_gelu: bool | None) -> ClipOrigin:
    """Returns what is known of a file: from its entries, the hub's config beside it, its checksum, or the user.

    Args:
        file: the file.
        names: names of its entries.
        quick_gelu: what the user says; None if nothing.

    Raises:
        ValueError: if nothing tells, or the config beside the file cannot be read.
    """
    told = _told_by_names(names) or _told_by_hub(file) or _told_by_checksum(file)
    if told is None and quick_gelu is None:
        raise ValueError(
            f"quick_gelu: {file} does not say which activation it was trained with, and a CLIP that runs with the "
            "other one is worse without any sign; say it: quick_gelu is True for weights of OpenAI, MetaCLIP and DFN, "
            "False for most others, such as LAION-2B's and DataComp's (in the config of a training it is "
            "start.clip_quick_gelu, in jobs.make_checkpoint clip_quick_gelu)"
        )
    return told or ClipOrigin(evidence="as quick_gelu says", quick_gelu=bool(quick_gelu))


def _told_by_names(names: Collection[str]) -> ClipOrigin | None:
    if set(names) >= OPENAI_ENTRIES:
        return ClipOrigin(
            evidence=f"it has the entries {', '.join(sorted(OPENAI_ENTRIES))}, as OpenAI's files do",
            quick_gelu=True,
            pixel_mean=OPENAI_DATASET_MEAN,
            pixel_std=OPENAI_DATASET_STD,
        )
    if any(name.startswith("_image_encoder.") for name in names):
        return ClipOrigin(evidence="it has TinyCLIP's names", quick_gelu=False)
    if any(name.startswith("visual.trunk.") for name in names):
        return ClipOrigin(evidence="its vision transformer is one of timm's", quick_gelu=False)
    return None


def _told_by_hub(file: Path) -> ClipOrigin | None:
    config = file.with_name(HUB_CONFIG)
    if file.name not in (HF_WEIGHTS_NAME, HF_SAFE_WEIGHTS_NAME) or not config.is_file():
        return None
    model, mean, std = _hub_config(config)
    quick_gelu = bool(model.get("quick_gelu"))
    return ClipOrigin(evidence=f"as {config} says", quick_gelu=quick_gelu, pixel_mean=mean, pixel_std=std)


def _hub_config(file: Path) -> tuple[dict[str, Any], Pixels | None, Pixels | None]:
    """Reads the architecture, and mean and deviation of pixels, from the hub's description of a CLIP."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        pixels = content.get("preprocess_cfg", {})
        return dict(content["model_cfg"]), _pixels(pixels.get("mean")), _pixels(pixels.get("std"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: cannot be read as open_clip's config ({error!r}); download it again") from error


def _told_by_checksum(file: Path) -> ClipOrigin | None:
    with file.open("rb") as content:
        checksum = hashlib.file_digest(content, "sha256").hexdigest()
    for model, name in open_clip.list_pretrained():
        tag = open_clip.get_pretrained_cfg(model, name)
        known = _CHECKSUM.search(tag.get("url", ""))
        if known and checksum.startswith(known[1] or known[2]):
            return origin_of_tag(tag)
    return None


def _pixels(values: Any) -> Pixels | None:
    if values is None:
        return None
    red, green, blue = map(float, values)
    return red, green, blue


def _with(quick_gelu: bool) -> str:
    return "with" if quick_gelu else "without"


def _remedy(config: ClipConfig, quick_gelu: bool) -> str:
    if not config.model:
        return f"set it to {quick_gelu}"
    other = f"{config.model}-quickgelu" if quick_gelu else config.model.removesuffix("-quickgelu")
    if other in open_clip.list_models():
        return f"use model {other!r}"
    return f"give the model as clip.architecture, with quick_gelu = {quick_gelu}"
