"""Saves and loads whole models; `files` says what a checkpoint folder holds."""

import dataclasses
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save as serialize
from torch import Tensor

from openvis_model.clip import build_clip, build_tokenizer
from openvis_model.config import InstFormerConfig
from openvis_model.folded.inst_former import FoldedInstFormer
from openvis_model.guided_attention import split_state
from openvis_model.hub_tokenizer import HubTokenizer
from openvis_model.inst_clip import InstClip
from openvis_model.inst_former import InstFormer
from openvis_model.options import Classifier
from openvis_model.proposal_networks import NETWORKS
from openvis_model.tokenizer import write_files
from openvis_model.weights.files import (
    TOKENIZER,
    Stored,
    check_adapter_config,
    check_fingerprint,
    model_fingerprint,
    read_config,
    read_states,
    weight_files,
)
from openvis_model.weights.folded_model import build_folded_model
from openvis_model.weights.inst_clip import PEFT_PREFIX, load_inst_clip
from openvis_model.weights.state_dicts import check_finite, contiguous, load_strictly


def save_checkpoint(model: InstFormer, folder: str | Path, *, origin: Mapping[str, Any] | None = None) -> str:
    """Writes a checkpoint folder and returns its fingerprint; the folder appears whole or not at all.

    Args:
        model: the model.
        folder: the folder, which must not exist.
        origin: where the weights come from, as plain values; kept in `config.json`, and no part of the fingerprint.

    Raises:
        ValueError: if the folder exists, a weight is NaN or infinite, or the model is one for inference.
    """
    if not isinstance(model, InstFormer):
        raise ValueError("model: is folded for inference and cannot be saved; copy the folder it was loaded from")
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder}: exists already; choose another folder or remove it")
    states = {name: contiguous(state) for name, state in _states(model).items()}
    for name, state in states.items():
        check_finite(state, source=f"{folder}: {name}")
    config = model.config.to_dict()
    identity = model_fingerprint(config, states)
    content = {"config": config, "fingerprint": identity} | ({"origin": dict(origin)} if origin else {})
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    partial.mkdir()
    try:
        for name, state in states.items():
            file = partial / f"{name}.safetensors"
            if name == TOKENIZER:
                (partial / name).mkdir()
                write_files(state, partial / name)
            else:
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
    """Returns a hash of the config and all weights; models with the same fingerprint give the same results."""
    return model_fingerprint(model.config.to_dict(), _states(model))


def fold(model: InstFormer) -> FoldedInstFormer:
    """Returns a model for inference with a copy of the weights of a trained one, on the same device.

    Raises:
        ValueError: if it cannot be folded; says what is unusual.
    """
    if not isinstance(model, InstFormer):
        raise ValueError("model: is folded for inference already; use it as it is")
    states = {name: contiguous(state) for name, state in _states(model).items()}
    config = model.config.to_dict()
    stored = Stored(Path("model"), config, states, model_fingerprint(config, states))
    return build_folded_model(stored).to(next(model.parameters()).device)


def load_checkpoint(folder: str | Path, *, classifier: Classifier | None = None) -> InstFormer:
    """Loads the model of a checkpoint folder, in eval mode.

    Args:
        folder: a folder written by `save_checkpoint`.
        classifier: replaces the checkpoint's classifier; every checkpoint has the weights for `crop_clip`.

    Raises:
        ValueError: for a missing or damaged file, names or shapes that differ from the config, NaN, or weights that
            do not match the fingerprint; names the file and the problem.
    """
    folder = Path(folder)
    values, expected = read_config(folder)
    try:
        config = InstFormerConfig.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{folder}/config.json: {error}") from error
    names = weight_files(folder, config.classifier)
    states = read_states(folder, names)
    _check_num_queries(config, states, folder)
    if classifier and classifier != config.classifier:
        config = dataclasses.replace(config, classifier=classifier)
        if missing := set(weight_files(folder, classifier)) - set(names):
            raise ValueError(f"{folder}: classifier {classifier!r} needs {sorted(missing)}, which it lacks")

    clip = build_clip(config.clip)
    load_strictly(clip, states["clip"], source=f"{folder}/clip.safetensors")
    model = InstFormer(config, clip=clip, tokenizer=build_tokenizer(config.clip, states.get(TOKENIZER)))
    network = model.mask_proposal.network
    load_strictly(network, states["mask_proposal"], source=f"{folder}/mask_proposal.safetensors")
    load_strictly(model.rollout_tracker, states["rollout_tracker"], source=f"{folder}/rollout_tracker.safetensors")
    if isinstance(model.classifier, InstClip):
        load_inst_clip(model.classifier, states, folder)
        check_adapter_config(folder, config.inst_clip)
    # Last, because the checks above name what differs.
    check_fingerprint(folder, values, states, expected)
    return model.eval()


def _states(model: InstFormer) -> dict[str, dict[str, Tensor]]:
    """Returns the state dict of each weight file."""
    states = {
        "clip": _clip_state(model),
        "mask_proposal": model.mask_proposal.network.state_dict(),
        "rollout_tracker": model.rollout_tracker.state_dict(),
    }
    if isinstance(model.classifier, InstClip):
        states["inst_clip"] = _tokens(model.classifier)
        adapter = get_peft_model_state_dict(model.classifier.visual)
        states["adapter/adapter_model"] = {PEFT_PREFIX + name: tensor for name, tensor in adapter.items()}
    if isinstance(model.text_encoder.tokenizer, HubTokenizer):
        states[TOKENIZER] = model.text_encoder.tokenizer.files
    return states


def _tokens(classifier: InstClip) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in classifier.state_dict().items() if not name.startswith("visual.")}


def _clip_state(model: InstFormer) -> dict[str, Tensor]:
    """Returns CLIP's weights under open_clip's names: without adapters, with query, key and value fused."""
    vision = split_state(model.classifier.visual)
    return model.text_encoder.clip_state() | {f"visual.{name}": tensor for name, tensor in vision.items()}


def _check_num_queries(config: InstFormerConfig, states: Mapping[str, Mapping[str, Tensor]], folder: Path) -> None:
    """Checks N first, because a list of misshapen weights would hide the cause."""
    expected = config.mask_proposal.num_queries
    for file, name in (
        ("mask_proposal", NETWORKS[config.mask_proposal.network].queries),
        ("inst_clip", "instance_tokens"),
        ("inst_clip", "instance_probes"),
    ):
        tensor = states.get(file, {}).get(name)
        if tensor is not None and tensor.ndim and len(tensor) != expected:
            raise ValueError(
                f"{folder}: num_queries: config.json says N = {expected}, {file}.safetensors holds {len(tensor)} of "
                f"{name}; copy the whole folder again"
            )
