"""Puts a model together from published weights, without any training."""

from pathlib import Path

import torch

from openvis_model.clip import ClipConfig, build_tokenizer
from openvis_model.config import InstFormerConfig
from openvis_model.inst_former import InstFormer
from openvis_model.tokenizer import Tokenizer, read_files
from openvis_model.weights.files import TOKENIZER
from openvis_model.weights.pretrained import load_clip
from openvis_model.weights.pretrained_proposals import load_mask_proposal


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
        proposals: what `load_mask_proposal` takes.
        clip: the CLIP.
        clip_weights: what `load_clip` takes.
        short_side: working size, pixels.
        quick_gelu: as in `load_clip`.

    Raises:
        ValueError: for weights that cannot be used; names them.
    """
    network = load_mask_proposal(proposals)
    config = InstFormerConfig(short_side=short_side, mask_proposal=network.config, clip=clip)
    loaded = load_clip(clip, clip_weights, quick_gelu=quick_gelu)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return InstFormer(config, clip=loaded, proposals=network, tokenizer=_tokenizer(clip, Path(clip_weights)))


def _tokenizer(clip: ClipConfig, weights: Path) -> Tokenizer:
    """Builds the tokenizer of a CLIP; that of a checkpoint comes with it."""
    kept = (weights if weights.is_dir() else weights.parent) / TOKENIZER
    return build_tokenizer(clip, read_files(kept) if kept.is_dir() else None)
