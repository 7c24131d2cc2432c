"""Weights in and out: pretrained CLIP and Mask2Former, and this project's checkpoints.

A checkpoint is a folder that needs nothing else, and holds no pickle:

    config.json                 the InstFormerConfig and the fingerprint of all weights
    clip.safetensors            CLIP under open_clip's names; training never changes it
    mask_proposal.safetensors   Mask2Former under transformers' names
    inst_clip.safetensors       instance tokens and register
    adapter/                    LoRA adapters in peft's format
    rollout_tracker.safetensors
"""

import dataclasses
import hashlib
import json
import os
import shutil
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path

import open_clip
import torch
from open_clip import CLIP
from open_clip.factory import load_state_dict
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor, nn
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.clip import ClipConfig, build_clip
from openvis_model.config import Classifier, InstFormerConfig
from openvis_model.detectron2 import config_from_weights, read_pickle, to_transformers
from openvis_model.fingerprint import tensor_fingerprint
from openvis_model.inst_clip import InstanceGuidanceAttention, InstClip
from openvis_model.inst_former import InstFormer

PEFT_PREFIX = "base_model.model."
"""What peft puts before the names of adapted modules."""


def load_clip(config: ClipConfig, weights: str | Path) -> CLIP:
    """CLIP with pretrained weights.

    Args:
        config: which CLIP; its name says whether it has QuickGELU, which weights by OpenAI need.
        weights: a local file (safetensors, or a `torch.save`d state dict), or one of `open_clip`'s tags for the model,
            which is downloaded to its cache.

    Raises:
        ValueError: for a tag that does not exist or does not fit the model, a file that holds no plain state dict, or
            names or shapes that differ.
    """
    clip = build_clip(config)
    file, weights = str(weights), str(weights)
    if not Path(weights).is_file():
        tag = open_clip.get_pretrained_cfg(config.model, weights) if config.model else {}
        if not tag:
            known = open_clip.list_pretrained_tags_by_model(config.model) if config.model else []
            raise ValueError(f"clip weights: {weights!r} is no file and no tag of {config.model!r}; tags: {known}")
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
        # torch's own message would suggest to run what is in the file.
        raise ValueError(
            f"clip weights {weights}: {file} holds no plain state dict ({type(error).__name__}); is its download "
            "complete? Use safetensors, or a state dict of tensors saved with torch.save"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"clip weights {weights}: {file} holds more than tensors; save its state dict alone")
    load_strictly(clip, state, source=f"clip weights {weights}")
    return clip


def load_mask2former(path: str | Path) -> Mask2FormerForUniversalSegmentation:
    """Mask2Former from a `transformers` folder, or from an original detectron2 `.pkl` file (R50 or Swin).

    Raises:
        ValueError: names the path; it is neither, a file is damaged or of another model, a pickle holds more than
            arrays, or names or shapes differ.
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
    # transformers knows the names of its earlier versions; what it then still misses or cannot place is an error.
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


def save_checkpoint(model: InstFormer, folder: str | Path) -> str:
    """Writes a checkpoint folder and returns its fingerprint; the folder appears whole or not at all.

    Raises:
        ValueError: if the folder exists, a weight is NaN or infinite, or the model was folded for inference.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder}: exists already; choose another folder or remove it")
    parts = {name: contiguous(state) for name, state in _parts(model).items()}
    for name, state in parts.items():
        check_finite(state, source=f"{folder}: {name}")
    config = model.config.to_dict()
    identity = _fingerprint(config, parts)
    content = {"config": config, "fingerprint": identity}
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    partial.mkdir()
    try:
        for name, state in parts.items():
            file = partial / f"{name}.safetensors"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(serialize(state))
        if isinstance(model.classifier, InstClip):
            lora: LoraConfig = model.classifier.visual.peft_config["default"]
            lora.save_pretrained(partial / "adapter")
        (partial / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return identity


def fingerprint(model: InstFormer) -> str:
    """Hash of the config and all weights; models with the same one give the same results."""
    return _fingerprint(model.config.to_dict(), _parts(model))


def load_checkpoint(folder: str | Path, *, classifier: Classifier | None = None) -> InstFormer:
    """The model of a checkpoint folder, in eval mode.

    Args:
        folder: written by `save_checkpoint`.
        classifier: another classifier than the checkpoint's; `crop_clip` needs nothing that a checkpoint lacks.

    Raises:
        ValueError: names the file and what is wrong: a missing file, names or shapes that differ from the config, NaN,
            or weights that are not those of the fingerprint.
    """
    folder = Path(folder)
    try:
        stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        values, expected = stored["config"], stored["fingerprint"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder}: not a checkpoint folder ({error!r} in config.json)") from error
    if not isinstance(expected, str):
        raise ValueError(f"{folder}/config.json: fingerprint: expected text, got {expected!r}; copy the file again")
    try:
        config = InstFormerConfig.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{folder}/config.json: {error}") from error
    names = part_names(config)
    parts = {name: _read(folder / f"{name}.safetensors") for name in names}
    _check_num_queries(config, parts, folder)
    if classifier and classifier != config.classifier:
        config = dataclasses.replace(config, classifier=classifier)
        if missing := set(part_names(config)) - set(names):
            raise ValueError(f"{folder}: classifier {classifier!r} needs {sorted(missing)}, which it lacks")

    clip = build_clip(config.clip)
    load_strictly(clip, parts["clip"], source=f"{folder}/clip.safetensors")
    model = InstFormer(config, clip=clip)
    load_strictly(model.mask_proposal.mask2former, parts["mask_proposal"], source=f"{folder}/mask_proposal.safetensors")
    load_strictly(model.rollout_tracker, parts["rollout_tracker"], source=f"{folder}/rollout_tracker.safetensors")
    if isinstance(model.classifier, InstClip):
        _load_inst_clip(model.classifier, parts, folder)
    # Last, because the checks above say what differs.
    if _fingerprint(values, parts) != expected:
        raise ValueError(
            f"{folder}: config.json and weights are not those that were saved together "
            f"(fingerprint {expected[:12]}…); copy the whole folder again"
        )
    return model.eval()


def part_names(config: InstFormerConfig) -> tuple[str, ...]:
    """The weight files of a checkpoint, without their ending."""
    common = ("clip", "mask_proposal", "rollout_tracker")
    return (*common, "inst_clip", "adapter/adapter_model") if config.classifier == "inst_clip" else common


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Loads a state dict that must fit exactly.

    Raises:
        ValueError: lists every missing, unexpected or misshapen name, or those that are not finite.
    """
    own = module.state_dict()
    problems = {
        "missing": sorted(set(own) - set(state)),
        "unexpected": sorted(set(state) - set(own)),
        "of another shape": [
            f"{name} {list(state[name].shape)} instead of {list(own[name].shape)}"
            for name in sorted(set(own) & set(state))
            if state[name].shape != own[name].shape
        ],
    }
    if any(problems.values()):
        lists = [f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names]
        raise ValueError(f"{source}: {'; '.join(lists)}")
    check_finite(state, source=source)
    module.load_state_dict(state)


def check_finite(state: Mapping[str, Tensor], *, source: str) -> None:
    """Checks that no weight is NaN or infinite.

    Raises:
        ValueError: lists the names of those that are.
    """
    if names := [name for name, tensor in sorted(state.items()) if not torch.isfinite(tensor).all()]:
        raise ValueError(f"{source}: NaN or infinite numbers in {', '.join(names)}; use an earlier checkpoint")


def contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as safetensors takes it: on the CPU, contiguous, nothing shared."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}


def _parts(model: InstFormer) -> dict[str, dict[str, Tensor]]:
    """All weights by file."""
    parts = {
        "clip": _clip_state(model),
        "mask_proposal": model.mask_proposal.mask2former.state_dict(),
        "rollout_tracker": model.rollout_tracker.state_dict(),
    }
    if isinstance(model.classifier, InstClip):
        if not any("lora_" in name for name, _ in model.classifier.visual.named_parameters()):
            raise ValueError("checkpoint: the model was folded for inference; save it before fold_for_inference")
        parts["inst_clip"] = _tokens(model.classifier)
        adapter = get_peft_model_state_dict(model.classifier.visual)
        parts["adapter/adapter_model"] = {PEFT_PREFIX + name: tensor for name, tensor in adapter.items()}
    return parts


def _tokens(classifier: InstClip) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in classifier.state_dict().items() if not name.startswith("visual.")}


def _clip_state(model: InstFormer) -> dict[str, Tensor]:
    """CLIP under open_clip's names: adapters left out, query, key and value fused again."""
    state = model.text_encoder.state_dict()
    visual = model.classifier.visual
    split = {name: module for name, module in visual.named_modules() if isinstance(module, InstanceGuidanceAttention)}
    for name, attention in split.items():
        for key, tensor in attention.fused().items():
            state[f"visual.{name}.{key}"] = tensor
    for key, tensor in visual.state_dict().items():
        if not any(key.startswith(f"{name}.") for name in split):
            state[f"visual.{key}"] = tensor
    return state


def _load_inst_clip(classifier: InstClip, parts: Mapping[str, dict[str, Tensor]], folder: Path) -> None:
    state = {f"visual.{name}": tensor for name, tensor in classifier.visual.state_dict().items()}
    load_strictly(classifier, state | parts["inst_clip"], source=f"{folder}/inst_clip.safetensors")
    expected = get_peft_model_state_dict(classifier.visual)
    adapter = {name.removeprefix(PEFT_PREFIX): tensor for name, tensor in parts["adapter/adapter_model"].items()}
    differing = sorted(
        name
        for name in set(adapter) | set(expected)
        if name not in adapter or name not in expected or adapter[name].shape != expected[name].shape
    )
    if differing:
        raise ValueError(f"{folder}/adapter: names or shapes that do not fit the config: {', '.join(differing)}")
    check_finite(adapter, source=f"{folder}/adapter")
    _check_adapter_config(classifier.visual.peft_config["default"], folder / "adapter/adapter_config.json")
    set_peft_model_state_dict(classifier.visual, adapter)


def _check_adapter_config(lora: LoraConfig, file: Path) -> None:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        found = {name: stored[name] for name in ("r", "lora_alpha")} | {
            "target_modules": sorted(stored["target_modules"])
        }
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read as peft's config ({error!r}); copy the whole folder again") from error
    expected = {"r": lora.r, "lora_alpha": lora.lora_alpha, "target_modules": sorted(lora.target_modules)}
    for name, value in expected.items():
        if found[name] != value:
            raise ValueError(
                f"{file}: {name}: {found[name]!r} disagrees with {value!r} of config.json; copy the whole folder again"
            )


def _check_num_queries(config: InstFormerConfig, parts: Mapping[str, Mapping[str, Tensor]], folder: Path) -> None:
    """Says in words what a list of misshapen weights would hide."""
    expected = config.mask_proposal.num_queries
    for part, name in (
        ("mask_proposal", "model.transformer_module.queries_features.weight"),
        ("inst_clip", "instance_tokens"),
    ):
        tensor = parts.get(part, {}).get(name)
        if tensor is not None and tensor.ndim and len(tensor) != expected:
            raise ValueError(
                f"{folder}: num_queries: config.json says N = {expected}, {part}.safetensors holds {len(tensor)} of "
                f"{name}; copy the whole folder again"
            )


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


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except Exception as error:
        raise ValueError(f"{file}: cannot be read as safetensors ({error})") from error


def _fingerprint(config: Mapping[str, object], parts: Mapping[str, Mapping[str, Tensor]]) -> str:
    content = json.dumps([config, {name: tensor_fingerprint(parts[name]) for name in sorted(parts)}], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
