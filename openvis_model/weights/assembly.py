"""Puts a model together from published weights, without any training."""

from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from openvis_model.clip import ClipConfig
from openvis_model.config import InstFormerConfig
from openvis_model.inst_former import InstFormer
from openvis_model.mask_proposal import MaskProposalConfig
from openvis_model.weights.pretrained import load_clip, load_mask2former

_NO_ARCHITECTURE = {
    *("_name_or_path", "architectures", "dtype", "id2label", "label2id", "transformers_version"),
    *("out_indices", "stage_names"),  # say the same as out_features
}
"""Fields of transformers' configs that do not describe a network."""


def assemble(
    proposals: str | Path,
    clip: ClipConfig,
    clip_weights: str | Path,
    *,
    short_side: int,
    quick_gelu: bool | None = None,
) -> InstFormer:
    """Builds a model from the weights of a proposal network and of a CLIP.

    Instance tokens begin as CLIP's class token and adapters at zero, so that names are CLIP's own. The rollout tracker
    has random weights, the same ones each time: use an association without one.

    Args:
        proposals: what `load_mask2former` takes.
        clip: the CLIP.
        clip_weights: what `load_clip` takes.
        short_side: working size, pixels.
        quick_gelu: as in `load_clip`.

    Raises:
        ValueError: for weights that cannot be used; names them.
    """
    network = load_mask2former(proposals)
    config = InstFormerConfig(
        short_side=short_side, mask_proposal=MaskProposalConfig(mask2former=describe(network.config)), clip=clip
    )
    loaded = load_clip(clip, clip_weights, quick_gelu=quick_gelu)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return InstFormer(config, clip=loaded, mask2former=network)


def describe(config: PretrainedConfig) -> dict[str, Any]:
    """Returns the fields of a config of transformers that differ from their defaults, as plain values."""
    default, described = type(config)(), dict[str, Any]()
    usual = default.to_dict()
    for name, value in config.to_dict().items():
        part = getattr(config, name, None)
        if isinstance(part, PretrainedConfig):
            described[name] = {"model_type": part.model_type} | describe(part)
        elif name in usual and name not in _NO_ARCHITECTURE and value != usual[name]:
            described[name] = value
    if config.num_labels != default.num_labels:
        described["num_labels"] = config.num_labels
    return described
