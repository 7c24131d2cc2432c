"""Small CLIPs of the kinds that users have, with random weights: the architectures are timm's and open_clip's own."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.layers import LayerNorm
from timm.models import Eva, VisionTransformer, register_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from openvis_model.clip import Clip, ClipConfig, build_clip
from openvis_model.config import InstFormerConfig, mini
from tests.words import WORDS

SIZE = 64
SMALL: dict[str, Any] = {"img_size": SIZE, "patch_size": 16, "embed_dim": 48, "depth": 3, "num_heads": 3}
PE: dict[str, Any] = {
    "attn_type": "rope",
    "use_pre_transformer_norm": True,
    "use_rot_pos_emb": True,
    "ref_feat_shape": (3, 3),
    "rope_grid_offset": 1.0,
    "rope_grid_indexing": "xy",
    "attn_pool_num_heads": 4,
    "attn_pool_mlp_ratio": 4.0,
    "norm_layer": partial(LayerNorm, eps=1e-5),
}


def _given(kwargs: dict[str, Any]) -> dict[str, Any]:
    return SMALL | {name: kwargs[name] for name in ("num_classes", "global_pool")}


@register_model
def openvis_eva02(pretrained: bool = False, **kwargs: Any) -> Eva:
    """timm's `eva02_base_patch16_clip_224`, smaller."""
    inner = {"qkv_fused": False, "mlp_ratio": 8 / 3, "swiglu_mlp": True, "scale_mlp": True, "scale_attn_inner": True}
    return Eva(**_given(kwargs), **inner, use_rot_pos_emb=True, ref_feat_shape=(5, 5))


@register_model
def openvis_eva02_enormous(pretrained: bool = False, **kwargs: Any) -> Eva:
    """timm's `eva02_enormous_patch14_clip_224`, smaller: norms stand behind what they norm, nothing is rotated."""
    return Eva(**_given(kwargs), use_post_norm=True)


@register_model
def openvis_pe(pretrained: bool = False, **kwargs: Any) -> Eva:
    """timm's `vit_pe_core_base_patch16_224`, smaller."""
    return Eva(**_given(kwargs), **PE)


@register_model
def openvis_pe_gigantic(pretrained: bool = False, **kwargs: Any) -> Eva:
    """timm's `vit_pe_core_gigantic_patch14_448`, smaller: it has no class token."""
    return Eva(**_given(kwargs), **PE, class_token=False)


@register_model
def openvis_siglip(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """timm's `vit_base_patch16_siglip_224`, smaller."""
    return VisionTransformer(**_given(kwargs), class_token=False)


TOWERS = {"eva02": "token", "eva02_enormous": "token", "pe": "map", "pe_gigantic": "map", "siglip": "map"}
"""The kinds, and how open_clip's descriptions of them say that patches are pooled."""

SIGLIP_TEXT = {
    "context_length": 16,
    "vocab_size": 64,
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "width": 48,
    "heads": 3,
    "layers": 2,
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
    "act_kwargs": {"approximate": "tanh"},
}


def small_clip(kind: str, folder: Path) -> ClipConfig:
    """A CLIP of one of the kinds; the tokenizer that SigLIP needs is written into a folder."""
    siglip = kind == "siglip"
    vision = {"image_size": SIZE, "timm_model_name": f"openvis_{kind}", "timm_pool": TOWERS[kind]}
    text = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    architecture = {
        "embed_dim": 48,
        "vision_cfg": vision | {"timm_proj": "none" if siglip else None},
        "text_cfg": SIGLIP_TEXT | {"hf_tokenizer_name": write_tokenizer(folder)} if siglip else text,
        "custom_text": True,
    }
    half = (0.5, 0.5, 0.5)
    if siglip:
        return ClipConfig(architecture=architecture | {"init_logit_bias": -10}, pixel_mean=half, pixel_std=half)
    return ClipConfig(architecture=architecture)


def small_model(kind: str, folder: Path) -> InstFormerConfig:
    """The miniature with such a CLIP."""
    config = mini(WORDS)
    return InstFormerConfig(**vars(config) | {"clip": small_clip(kind, folder)})


def write_tokenizer(folder: Path) -> str:
    """Writes a small tokenizer in the form of SigLIP 2's, which knows the miniature's words; returns its folder."""
    ids = {word: index for index, word in enumerate(("<pad>", "<eos>", "<bos>", "<unk>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="right"
    ).save_pretrained(folder)
    return str(folder)


def random_clip(config: ClipConfig) -> Clip:
    """A CLIP where no weight is at its neutral start, so that a lost one shows."""
    clip = build_clip(config).eval()
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return clip
