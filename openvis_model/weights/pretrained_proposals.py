"""Loads pretrained proposal networks, from folders of transformers or from detectron2's files."""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import Mask2FormerForUniversalSegmentation, PretrainedConfig, PreTrainedModel

from openvis_model.mask_proposal import MaskProposalConfig, PretrainedProposals, field_names
from openvis_model.proposal_networks import NETWORKS, check_mask_proposal
from openvis_model.weights.detectron2 import config_from_weights, to_transformers
from openvis_model.weights.hub import PROCESSORS
from openvis_model.weights.state_dicts import check_finite, load_strictly
from openvis_model.weights.tensor_file import read_state

_UNUSED = re.compile(r"\.relative_position_index$|\.encoder\.swin\.layernorm\.(weight|bias)$")
"""Names in which files of Swins differ by the version of transformers that wrote them: a table that follows from the
window, and a norm that feature maps bypass."""


def load_mask_proposal(path: str | Path) -> PretrainedProposals:
    """Loads a proposal network from a `transformers` folder, whose `model_type` says which, or from an original file.

    Pixel statistics and the side of a square input are those of the folder's own preprocessing, if it has one. Original
    files are detectron2's `.pkl` of released Mask2Formers and the `.pth` of its trainer, which MinVIS' are too.

    Raises:
        ValueError: for a path that is neither, a file that is damaged or of another network, a pickle with more than
            arrays, or names or shapes that differ; names the path.
    """
    path = Path(path)
    if path.is_file():
        return _load_detectron2(path)
    if not (path / "config.json").is_file():
        raise ValueError(
            f"{path}: expected a transformers folder with a config.json, or detectron2's .pkl or .pth file"
        )
    kind = _network_class(path)
    for file in sorted(path.glob("*.safetensors")):
        _check_readable(file)
    # transformers translates the names of its earlier versions; any name still missing or unexpected is an error.
    try:
        with _no_report():
            network, info = kind.from_pretrained(
                **_weights_of(path, kind),
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
    except Exception as error:
        raise ValueError(f"{path}: transformers cannot load it as {kind.__name__} ({error})") from error
    differing = {kind: sorted(filter(lambda name: not _UNUSED.search(name), map(str, info[kind]))) for kind in info}
    if problems := {kind: names for kind, names in differing.items() if names}:
        raise ValueError(f"{path}: " + "; ".join(f"{kind}: {', '.join(names)}" for kind, names in problems.items()))
    check_finite(network.state_dict(), source=str(path))
    return _described(network, path, **_preprocessing(path))


def _weights_of(folder: Path, kind: type[PreTrainedModel]) -> dict[str, Any]:
    """Returns the arguments with which transformers reads a folder; a pickle is read here, as tensors alone."""
    pickled = folder / "pytorch_model.bin"
    if any(folder.glob("*.safetensors")) or not pickled.is_file():
        return {"pretrained_model_name_or_path": folder, "use_safetensors": True}
    config = kind.config_class.from_pretrained(folder, local_files_only=True)
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


def _network_class(folder: Path) -> type[PreTrainedModel]:
    """Finds the class of a folder's network, in `transformers`.

    Raises:
        ValueError: for a network that is not known, or one that makes no masks of instances.
    """
    file = folder / "config.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        model_type, classes = values["model_type"], values.get("architectures") or []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: cannot be read as a transformers config ({error!r})") from error
    if model_type not in NETWORKS:
        raise ValueError(f"{file}: model_type: unknown value {model_type!r}; use one of {tuple(NETWORKS)}")
    kind = NETWORKS[model_type].transformers_class
    if classes and kind.__name__ not in classes:
        raise ValueError(f"{file}: architectures: expected {kind.__name__}, which makes masks, got {classes}")
    return kind


def _described(network: PreTrainedModel, source: Path, **preprocessing: Any) -> PretrainedProposals:
    if not NETWORKS[network.config.model_type].any_side:
        preprocessing.pop("image_size", None)
    config = MaskProposalConfig(
        network=network.config.model_type, architecture=plain_values(network.config), **preprocessing
    )
    try:
        check_mask_proposal(config)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return PretrainedProposals(config, network)


def plain_values(config: PretrainedConfig) -> dict[str, Any]:
    """Returns a config as plain values that do not depend on where and by which version it was written.

    Published configs have fields of earlier versions, which no longer have an effect.
    """
    left_out = {"transformers_version", "architectures", "dtype", "_name_or_path", "id2label", "label2id"}
    known = field_names(type(config)) - left_out
    values = {name: value for name, value in config.to_dict().items() if name in known}
    values["num_labels"] = config.num_labels
    if isinstance(backbone := getattr(config, "backbone_config", None), PretrainedConfig):
        values["backbone_config"] = plain_values(backbone)
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _preprocessing(folder: Path) -> dict[str, Any]:
    """Reads pixel statistics, and the side of a square input, from the first of `PROCESSORS` that is there."""
    for file in (folder / name for name in PROCESSORS):
        if file.is_file():
            return _processor_values(file)
    return {}


def _processor_values(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        values = values.get("image_processor", values)
        # Some files have them in float32: 0.48500001430511475.
        found: dict[str, Any] = {
            ours: tuple(round(float(value), 6) for value in values[theirs])
            for ours, theirs in (("pixel_mean", "image_mean"), ("pixel_std", "image_std"))
            if values.get(theirs) is not None
        }
        if any(len(three) != 3 for three in found.values()):
            raise ValueError(f"expected three values each, got {found}")
        size = values.get("size") or {}
        if isinstance(size, dict) and size.get("height") and size.get("height") == size.get("width"):
            found["image_size"] = int(size["height"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: cannot be read as transformers' preprocessing ({error})") from error
    return found


def _load_detectron2(path: Path) -> PretrainedProposals:
    weights = read_state(path, "model")
    try:
        config = config_from_weights(weights)
        state = to_transformers(weights, config)  # before the network takes any memory
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    network = Mask2FormerForUniversalSegmentation(config)
    load_strictly(network, state, source=str(path))
    return _described(network, path)


def _check_readable(file: Path) -> None:
    try:
        with safe_open(file, framework="pt"):
            pass
    except Exception as error:
        raise ValueError(f"{file}: cannot be read as safetensors ({error}); is its download complete?") from error
