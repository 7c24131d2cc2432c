"""The files of a checkpoint, and their fingerprint.

A checkpoint is a self-contained folder without pickles:

    config.json                 the InstFormerConfig, the fingerprint of all weights, and, of a model that was put
                                together from published weights, where they come from and under which licences
    clip.safetensors            CLIP under open_clip's names; training never changes it
    mask_proposal.safetensors   the proposal network under transformers' names
    inst_clip.safetensors       instance tokens and register
    adapter/                    LoRA adapters in peft's format
    rollout_tracker.safetensors
    tokenizer/                  CLIP's tokenizer as the Hugging Face hub has it, for a CLIP that needs one of the hub

Reading them needs neither CLIP nor a proposal network, whose libraries take seconds to import.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from openvis_model.fingerprint import tensor_fingerprint
from openvis_model.options import LORA_TARGETS, Classifier, InstClipConfig
from openvis_model.tokenizer import read_files

TOKENIZER = "tokenizer"
"""Folder of a checkpoint whose files are weights to the fingerprint: bytes, by the names of the files."""

BUILT_IN = Path(__file__).parents[1] / "built_in_model"
"""Checkpoint folder of the built-in model: the mini preset, trained on Shapes; it knows only the words of Shapes."""

_REMEDY = "give one that jobs.train or jobs.make_checkpoint wrote"


@dataclass(frozen=True)
class Stored:
    """What a checkpoint folder holds.

    Attributes:
        folder: its path.
        config: the `InstFormerConfig` as plain values.
        states: the state dict of each weight file.
        fingerprint: hash of config and states.
    """

    folder: Path
    config: dict[str, Any]
    states: dict[str, dict[str, Tensor]]
    fingerprint: str


def read_config(folder: Path) -> tuple[dict[str, Any], str]:
    """Reads the config, as plain values, and the fingerprint of a checkpoint folder.

    Raises:
        ValueError: names the file and the problem.
    """
    try:
        stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        values, expected = stored["config"], stored["fingerprint"]
    except OSError as error:
        why = "it has no config.json" if isinstance(error, FileNotFoundError) else f"config.json: {error.strerror}"
        raise ValueError(f"checkpoint: {folder}: not a checkpoint folder ({why}); {_REMEDY}") from error
    except (KeyError, TypeError, ValueError) as error:
        what = f"checkpoint: {folder}: not a checkpoint folder ({error!r} in config.json)"
        raise ValueError(f"{what}; {_REMEDY}") from error
    if not isinstance(expected, str):
        raise ValueError(f"{folder}/config.json: fingerprint: expected text, got {expected!r}; copy the file again")
    return values, expected


def read_checkpoint(folder: Path) -> Stored:
    """Reads a checkpoint folder and checks that its files were saved together.

    Raises:
        ValueError: names the file and the problem.
    """
    config, fingerprint = read_config(folder)
    try:
        names = weight_files(folder, config["classifier"])
        inst_clip = InstClipConfig(**config["inst_clip"])
    except KeyError as error:
        raise ValueError(f"{folder}/config.json: {error} is missing; copy the whole folder again") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder}/config.json: {error}; copy the whole folder again") from error
    states = read_states(folder, names)
    check_fingerprint(folder, config, states, fingerprint)
    if config["classifier"] == "inst_clip":
        check_adapter_config(folder, inst_clip)
    return Stored(folder, config, states, fingerprint)


def weight_files(folder: Path, classifier: Classifier) -> tuple[str, ...]:
    """Returns the names of a checkpoint's weight files, without extension, and its tokenizer if it has one."""
    tokenizer = (TOKENIZER,) if (folder / TOKENIZER).is_dir() else ()
    common = ("clip", "mask_proposal", "rollout_tracker", *tokenizer)
    return (*common, "inst_clip", "adapter/adapter_model") if classifier == "inst_clip" else common


def read_states(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """Reads the state dict of each weight file.

    Raises:
        ValueError: names the file that cannot be read.
    """
    return {
        name: read_files(folder / name) if name == TOKENIZER else _read(folder / f"{name}.safetensors")
        for name in names
    }


def model_fingerprint(config: Mapping[str, object], states: Mapping[str, Mapping[str, Tensor]]) -> str:
    """Returns a hash of a config, as plain values, and the state dict of each weight file."""
    content = json.dumps([config, {name: tensor_fingerprint(states[name]) for name in sorted(states)}], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def check_fingerprint(
    folder: Path, config: Mapping[str, object], states: Mapping[str, Mapping[str, Tensor]], expected: str
) -> None:
    """Checks that config and weights were saved together.

    Raises:
        ValueError: they were not.
    """
    if model_fingerprint(config, states) != expected:
        raise ValueError(
            f"{folder}: config.json and weights are not those that were saved together "
            f"(fingerprint {expected[:12]}…); copy the whole folder again"
        )


def check_adapter_config(folder: Path, config: InstClipConfig) -> None:
    """Checks that peft's config of the adapters, which the fingerprint does not cover, agrees with `config.json`.

    Raises:
        ValueError: names the file and the field.
    """
    file = folder / "adapter/adapter_config.json"
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        given = {name: stored[name] for name in ("r", "lora_alpha")} | {
            "target_modules": sorted(stored["target_modules"])
        }
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read as peft's config ({error!r}); copy the whole folder again") from error
    expected = {"r": config.lora_rank, "lora_alpha": config.lora_alpha, "target_modules": sorted(LORA_TARGETS)}
    for name, value in expected.items():
        if given[name] != value:
            raise ValueError(
                f"{file}: {name}: {given[name]!r} disagrees with {value!r} of config.json; copy the whole folder again"
            )


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except Exception as error:
        raise ValueError(f"{file}: cannot be read as safetensors ({error})") from error
