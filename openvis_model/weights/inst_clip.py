"""Loads what InstCLIP adds to its CLIP: tokens and adapters."""

from collections.abc import Mapping
from pathlib import Path

from peft import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from openvis_model.inst_clip import InstClip
from openvis_model.weights.state_dicts import check_finite, load_strictly

PEFT_PREFIX = "base_model.model."
"""Prefix that peft adds to the names of adapted modules."""


def load_inst_clip(classifier: InstClip, states: Mapping[str, dict[str, Tensor]], folder: Path) -> None:
    """Loads tokens and adapters into an InstCLIP that has CLIP's weights.

    Raises:
        ValueError: for names or shapes that differ from the config, or NaN; names the file.
    """
    state = {f"visual.{name}": tensor for name, tensor in classifier.visual.state_dict().items()}
    load_strictly(classifier, state | states["inst_clip"], source=f"{folder}/inst_clip.safetensors")
    expected = get_peft_model_state_dict(classifier.visual)
    adapter = {name.removeprefix(PEFT_PREFIX): tensor for name, tensor in states["adapter/adapter_model"].items()}
    differing = sorted(
        name
        for name in set(adapter) | set(expected)
        if name not in adapter or name not in expected or adapter[name].shape != expected[name].shape
    )
    if differing:
        raise ValueError(
            f"{folder}/adapter: names or shapes differ from the config: {', '.join(differing)}; "
            "copy the whole folder again"
        )
    check_finite(adapter, source=f"{folder}/adapter")
    set_peft_model_state_dict(classifier.visual, adapter)
