"""Loads pretrained weights of CLIP, from open_clip or OpenAI."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
from open_clip.model import convert_to_custom_text_state_dict
from torch import Tensor

from openvis_model.clip import Clip, ClipConfig, build_clip
from openvis_model.towers import TextTowerConfig, VisionTowerConfig
from openvis_model.weights.clip_origin import OPENAI_ENTRIES, origin_of_checkpoint, origin_of_file, origin_of_tag
from openvis_model.weights.hub import fetch_clip
from openvis_model.weights.state_dicts import load_strictly
from openvis_model.weights.tensor_file import read_state

_WRAPPERS = re.compile(r"^module\.|^_(image_encoder|text_encoder|logit_scale)\.(module\.)?")
"""Prefixes of published names: distributed training's, and TinyCLIP's for each tower."""

_TOWERS = (
    (r"visual\.(conv1|trunk\.patch_embed\.proj)\.weight", r"visual\.(?:transformer\.resblocks|trunk\.blocks)\.(\d+)\."),
    (r"(text\.)?token_embedding\.weight", r"(?:text\.)?transformer\.resblocks\.(\d+)\."),
)
"""Names of the first weight of the image and the text tower, and of those in their layers."""

_NO_CLIP = "no two towers of a CLIP"


def load_clip(config: ClipConfig, weights: str | Path, *, quick_gelu: bool | None = None) -> Clip:
    """Builds a CLIP with pretrained weights.

    Args:
        config: the CLIP to build; OpenAI's weights need a model name that ends with `-quickgelu`.
        weights: a tag of `open_clip` for the model, which is downloaded to open_clip's cache; a checkpoint folder; or a
            file: safetensors, a state dict or checkpoint of `torch.save` (open_clip's and TinyCLIP's names), or
            OpenAI's TorchScript archive, whose code is not run.
        quick_gelu: whether the weights of a file were trained with QuickGELU, OpenAI's activation. Needed if nothing
            tells: neither entries that only OpenAI's files have, nor TinyCLIP's names, nor an `open_clip_config.json`
            beside the file, nor a checksum that open_clip knows.

    Raises:
        ValueError: for a tag that does not exist, weights that were trained with another activation or other pixels
            than the model's, a file that does not tell, one that needs more than tensors, one of a model of another
            size, or names or shapes that differ.
    """
    clip, path = build_clip(config), Path(weights)
    if path.name == "clip.safetensors" and (path.parent / "config.json").is_file():
        path = path.parent  # a checkpoint, whose config tells how its CLIP was trained
    if path.is_file():
        state = _read_clip(path, weights)
        origin_of_file(path, state, quick_gelu).check(config, str(weights), quick_gelu)
    elif (path / "clip.safetensors").is_file():
        origin_of_checkpoint(path).check(config, str(weights), quick_gelu)
        state = _read_clip(path / "clip.safetensors", weights)
    else:
        tag = _tag(config, str(weights))
        origin_of_tag(tag).check(config, str(weights), quick_gelu)  # before the download
        state = _read_clip(fetch_clip(tag), weights)
    named = _names_of(clip, _open_clip_names(state))
    expected, found = described(clip.state_dict()), described(named)
    if found != expected:
        models = " or ".join(_models_of(found)[:4]) or "the model that it holds"
        remedy = "the weights of one" if found == _NO_CLIP else f"{models} (in jobs.make_checkpoint, as clip_model)"
        raise ValueError(
            f"clip weights {weights} are of another model than {config.model or 'clip.architecture'}: expected "
            f"{expected}; the file has {found}; give {remedy}"
        )
    load_strictly(clip, named, source=f"clip weights {weights}")
    return clip


def described(state: Mapping[str, Tensor]) -> str:
    """Describes the towers of a CLIP in words, by its weights under open_clip's names."""
    image, text = (
        (
            next((list(tensor.shape) for name, tensor in state.items() if re.fullmatch(first, name)), []),
            len({found[1] for name in state if (found := re.match(block, name))}),
        )
        for first, block in _TOWERS
    )
    if len(image[0]) != 4 or len(text[0]) != 2:
        return _NO_CLIP
    return _words(image[0][-1], image[0][0], image[1], text[0][1], text[1])


def _words(patch_size: int, width: int, layers: int, text_width: int, text_layers: int) -> str:
    image = f"patches of {patch_size} pixels, {layers} layers of width {width}"
    return f"{image}, and for texts {text_layers} layers of width {text_width}"


def _models_of(description: str) -> list[str]:
    """Returns the plain CLIPs of open_clip that are described like this."""
    names = []
    for name in open_clip.list_models():
        architecture = open_clip.get_model_config(name)
        try:
            image, text = VisionTowerConfig.of(architecture), TextTowerConfig.of(architecture)
        except (ValueError, TypeError):
            continue  # of another kind
        if _words(image.patch_size, image.width, image.layers, text.width, text.layers) == description:
            names.append(name)
    return names


def _tag(config: ClipConfig, weights: str) -> dict[str, Any]:
    """Returns what open_clip knows of a tag of the model."""
    tag: dict[str, Any] = open_clip.get_pretrained_cfg(config.model, weights) if config.model else {}
    if not tag:
        known = open_clip.list_pretrained_tags_by_model(config.model) if config.model else []
        raise ValueError(
            f"clip weights: {weights!r} is neither a file, nor a checkpoint folder, nor a tag of {config.model!r}; "
            f"choose from its tags {known}"
        )
    return tag


def _read_clip(file: Path, weights: str | Path) -> dict[str, Tensor]:
    try:
        return read_state(file, "state_dict")
    except ValueError as error:
        raise ValueError(f"clip weights {weights}: {error}") from error


def _open_clip_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights of a published state dict under open_clip's names."""
    kept = [name for name in state if name not in OPENAI_ENTRIES and not name.endswith("attn_mask")]  # a constant
    renamed: dict[str, Tensor] = {}
    for name in kept:
        ours = _WRAPPERS.sub("", name)
        if ours in renamed:
            raise ValueError(f"clip weights: {name} is there under another name too; save each weight once")
        renamed[ours] = state[name]
    return renamed


def _names_of(clip: Clip, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights as this kind of CLIP has them; files differ in it as in what open_clip itself reads."""
    plain_text = isinstance(clip, open_clip.CustomTextCLIP) and "positional_embedding" in state
    named: dict[str, Tensor] = convert_to_custom_text_state_dict(state) if plain_text else dict(state)
    for name in ("logit_scale", "logit_bias"):
        if name in named and named[name].numel() == 1:
            named[name] = named[name].reshape(())
    return named
