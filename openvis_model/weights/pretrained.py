"""Loads pretrained weights: CLIP from open_clip or OpenAI, Mask2Former from detectron2 or transformers."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
from open_clip import CLIP
from safetensors import safe_open
from torch import Tensor
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from openvis_model.clip import ClipConfig, build_clip
from openvis_model.weights.clip_origin import OPENAI_ENTRIES, origin_of_checkpoint, origin_of_file, origin_of_tag
from openvis_model.weights.detectron2 import config_from_weights, to_transformers
from openvis_model.weights.hub import fetch_clip
from openvis_model.weights.state_dicts import check_finite, load_strictly
from openvis_model.weights.tensor_file import read_state

_WRAPPERS = re.compile(r"^module\.|^_(image_encoder|text_encoder|logit_scale)\.(module\.)?")
"""Prefixes of published names: distributed training's, and TinyCLIP's for each tower."""

_UNUSED = re.compile(r"\.relative_position_index$|\.encoder\.swin\.layernorm\.(weight|bias)$")
"""Names in which files of Swins differ by the version of transformers that wrote them: a table that follows from the
window, and a norm that feature maps bypass."""


def load_clip(config: ClipConfig, weights: str | Path, *, quick_gelu: bool | None = None) -> CLIP:
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
            than the model's, a file that does not tell, one that needs more than tensors, or names or shapes that
            differ.
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
    load_strictly(clip, _open_clip_names(state), source=f"clip weights {weights}")
    return clip


def load_mask2former(path: str | Path) -> Mask2FormerForUniversalSegmentation:
    """Loads Mask2Former (ResNet or Swin) from a `transformers` folder, or from an original file.

    Original files are detectron2's `.pkl` of released models and the `.pth` of its trainer, which MinVIS' are too.

    Raises:
        ValueError: for a path that is neither, a file that is damaged or of another model, a pickle with more than
            arrays, or names or shapes that differ; names the path.
    """
    path = Path(path)
    if path.is_file():
        return _load_detectron2(path)
    if not (path / "config.json").is_file():
        raise ValueError(
            f"{path}: expected a transformers folder with a config.json, or detectron2's .pkl or .pth file"
        )
    try:
        model_type = json.loads((path / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}/config.json: cannot be read as a transformers config ({error!r})") from error
    if model_type != "mask2former":
        raise ValueError(
            f"{path}/config.json: model_type: expected 'mask2former', got {model_type!r}; use a Mask2Former"
        )
    for file in sorted(path.glob("*.safetensors")):
        _check_readable(file)
    # transformers translates the names of its earlier versions; any name still missing or unexpected is an error.
    try:
        with _no_report():
            network, info = Mask2FormerForUniversalSegmentation.from_pretrained(
                **_weights_of(path), local_files_only=True, ignore_mismatched_sizes=True, output_loading_info=True
            )
    except Exception as error:
        raise ValueError(f"{path}: transformers cannot load it as a Mask2Former ({error})") from error
    differing = {kind: sorted(filter(lambda name: not _UNUSED.search(name), map(str, info[kind]))) for kind in info}
    if problems := {kind: names for kind, names in differing.items() if names}:
        raise ValueError(f"{path}: " + "; ".join(f"{kind}: {', '.join(names)}" for kind, names in problems.items()))
    check_finite(network.state_dict(), source=str(path))
    return network


def _weights_of(folder: Path) -> dict[str, Any]:
    """Returns the arguments with which transformers reads a folder; a pickle is read here, as tensors alone."""
    pickled = folder / "pytorch_model.bin"
    if any(folder.glob("*.safetensors")) or not pickled.is_file():
        return {"pretrained_model_name_or_path": folder, "use_safetensors": True}
    config = Mask2FormerConfig.from_pretrained(folder, local_files_only=True)
    return {"pretrained_model_name_or_path": None, "config": config, "state_dict": read_state(pickled, "state_dict")}


@contextmanager
def _no_report() -> Iterator[None]:
    """Keeps transformers from printing which names differ: we do, if they matter."""
    logger = logging.getLogger("transformers.modeling_utils")
    logger.disabled, before = True, logger.disabled
    try:
        yield
    finally:
        logger.disabled = before


def _load_detectron2(path: Path) -> Mask2FormerForUniversalSegmentation:
    weights = read_state(path, "model")
    try:
        config = config_from_weights(weights)
        state = to_transformers(weights, config)  # before the network takes any memory
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    network = Mask2FormerForUniversalSegmentation(config)
    load_strictly(network, state, source=str(path))
    return network


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


def _check_readable(file: Path) -> None:
    try:
        with safe_open(file, framework="pt"):
            pass
    except Exception as error:
        raise ValueError(f"{file}: cannot be read as safetensors ({error}); is its download complete?") from error
