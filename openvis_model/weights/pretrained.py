"""Loads pretrained weights: CLIP from open_clip, Mask2Former from detectron2 or transformers."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import open_clip
from open_clip import CLIP
from open_clip.factory import load_state_dict
from safetensors import safe_open
from torch import Tensor
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.clip import ClipConfig, build_clip
from openvis_model.weights.detectron2 import config_from_weights, read_pickle, to_transformers
from openvis_model.weights.state_dicts import check_finite, load_strictly


def load_clip(config: ClipConfig, weights: str | Path) -> CLIP:
    """Builds a CLIP with pretrained weights.

    Args:
        config: the CLIP to build; OpenAI's weights need a model name that ends with `-quickgelu`.
        weights: a local file (safetensors, or a state dict saved with `torch.save`), or a tag of `open_clip` for the
            model, which is downloaded to open_clip's cache.

    Raises:
        ValueError: for a tag that does not exist or does not fit the model, a file that is not a plain state dict, or
            names or shapes that differ.
    """
    clip = build_clip(config)
    file, weights = str(weights), str(weights)
    if not Path(weights).is_file():
        tag = open_clip.get_pretrained_cfg(config.model, weights) if config.model else {}
        if not tag:
            known = open_clip.list_pretrained_tags_by_model(config.model) if config.model else []
            raise ValueError(
                f"clip weights: {weights!r} is neither a file nor a tag of {config.model!r}; "
                f"choose from its tags {known}"
            )
        quick_gelu = bool((open_clip.get_model_config(config.model) or {}).get("quick_gelu"))
        if bool(tag.get("quick_gelu")) != quick_gelu:
            other = config.model.removesuffix("-quickgelu") if quick_gelu else f"{config.model}-quickgelu"
            raise ValueError(
                f"clip.model: weights {weights!r} were trained {'without' if quick_gelu else 'with'} QuickGELU, "
                f"{config.model!r} is {'with' if quick_gelu else 'without'} it; use model {other!r}"
            )
        if tuple(tag.get("mean", config.pixel_mean)) != config.pixel_mean:
            raise ValueError(f"clip.pixel_mean: weights {weights!r} need {tag['mean']}, got {config.pixel_mean}")
        file = open_clip.download_pretrained(tag)
    if _is_torchscript(file):
        raise ValueError(
            f"clip weights {weights}: {file} is a TorchScript program; use open_clip's tag of these weights (such as "
            "'openai') instead of a file, or convert its state dict to safetensors"
        )
    try:
        state = load_state_dict(file, weights_only=True)
    except Exception as error:
        # torch's own message would suggest running the code in the file.
        raise ValueError(
            f"clip weights {weights}: {file} holds no plain state dict ({type(error).__name__}); is its download "
            "complete? Use safetensors, or a state dict of tensors saved with torch.save"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"clip weights {weights}: {file} holds more than tensors; save its state dict alone")
    load_strictly(clip, state, source=f"clip weights {weights}")
    return clip


def load_mask2former(path: str | Path) -> Mask2FormerForUniversalSegmentation:
    """Loads Mask2Former from a `transformers` folder, or from an original detectron2 `.pkl` file (ResNet or Swin).

    Raises:
        ValueError: for a path that is neither, a file that is damaged or of another model, a pickle with more than
            arrays, or names or shapes that differ; names the path.
    """
    path = Path(path)
    if path.suffix == ".pkl":
        return _load_detectron2(path)
    if not (path / "config.json").is_file():
        raise ValueError(f"{path}: expected a transformers folder with a config.json, or a detectron2 .pkl file")
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
        network, info = Mask2FormerForUniversalSegmentation.from_pretrained(
            path, local_files_only=True, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True
        )
    except Exception as error:
        raise ValueError(f"{path}: transformers cannot load it as a Mask2Former ({error})") from error
    problems = {kind: sorted(map(str, names)) for kind, names in info.items() if names}
    if problems:
        raise ValueError(f"{path}: " + "; ".join(f"{kind}: {', '.join(names)}" for kind, names in problems.items()))
    check_finite(network.state_dict(), source=str(path))
    return network


def _load_detectron2(path: Path) -> Mask2FormerForUniversalSegmentation:
    try:
        arrays = read_pickle(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    try:
        network = Mask2FormerForUniversalSegmentation(config_from_weights(arrays))
        state = to_transformers(arrays, network.config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    load_strictly(network, state, source=str(path))
    return network


def _is_torchscript(file: str) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(Path(name).name == "constants.pkl" for name in archive.namelist())


def _check_readable(file: Path) -> None:
    try:
        with safe_open(file, framework="pt"):
            pass
    except Exception as error:
        raise ValueError(f"{file}: cannot be read as safetensors ({error}); is its download complete?") from error
