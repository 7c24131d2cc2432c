"""Small networks of the kinds that users have."""

from dataclasses import replace
from typing import Any

import open_clip
import torch
from transformers import PreTrainedModel

from openvis_model.clip import ClipConfig, build_clip
from openvis_model.config import InstFormerConfig
from openvis_model.inst_clip import InstClip
from openvis_model.inst_former import InstFormer
from openvis_model.mask_proposal import MaskProposalConfig, PretrainedProposals
from openvis_model.proposal_networks import NETWORKS

TINY: dict[str, Any] = {
    "num_queries": 7,
    "num_labels": 80,
    "hidden_dim": 32,
    "feature_size": 32,
    "mask_feature_size": 32,
    "encoder_layers": 1,
    "decoder_layers": 4,
    "encoder_feedforward_dim": 32,
    "dim_feedforward": 32,
    "num_attention_heads": 2,
}
OUT = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
TINY_BACKBONES: dict[str, dict[str, Any]] = {
    "resnet": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    "swin": {
        "model_type": "swin",
        "embed_dim": 12,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 4,
    },
}
TINY_EOMT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "image_size": 64,
    "patch_size": 8,
    "num_blocks": 2,
    "num_upscale_blocks": 1,
    "num_register_tokens": 2,
    "num_queries": 7,
    "num_labels": 5,
}
TINY_RF_DETR: dict[str, Any] = {
    "backbone_config": {
        "model_type": "rf_detr_dinov2",
        "hidden_size": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 8,
        "num_windows": 2,
        "out_features": ["stage1", "stage3"],
    },
    "d_model": 32,
    "num_queries": 7,
    "group_detr": 2,
    "c2f_num_blocks": 1,
    "decoder_layers": 2,
    "decoder_self_attention_heads": 2,
    "decoder_cross_attention_heads": 2,
    "decoder_n_points": 2,
    "decoder_ffn_dim": 32,
    "intermediate_size": 32,
    "num_labels": 5,
}
TINY_PROPOSALS = {
    "mask2former": MaskProposalConfig(
        network="mask2former",
        architecture=TINY | {"backbone_config": TINY_BACKBONES["swin"] | OUT},
    ),
    "eomt": MaskProposalConfig(network="eomt", architecture=TINY_EOMT),
    "rf_detr": MaskProposalConfig(network="rf_detr", architecture=TINY_RF_DETR),
}
"""A small one of each mask proposal network."""


def tiny_transformers(network: str) -> PreTrainedModel:
    """A small network of `transformers` with random weights where no norm and no bias is at its neutral start."""
    model = NETWORKS[network].transformers_class(TINY_PROPOSALS[network].build()).eval()
    trained_norms(model)
    if network == "rf_detr":  # as many logits above zero as below
        with torch.no_grad():
            model.segmentation_bias.sub_(model(torch.rand(1, 3, 64, 64)).pred_masks.mean())
    return model


def with_proposals(config: InstFormerConfig, network: str) -> InstFormer:
    """A model of a config, but with a small proposal network of another kind."""
    proposal = TINY_PROPOSALS[network]
    weights = PretrainedProposals(proposal, tiny_transformers(network))
    return InstFormer(replace(config, mask_proposal=proposal), proposals=weights)


def perturbed(config: ClipConfig) -> open_clip.CLIP:
    """CLIP with random weights where no bias and no norm is at its neutral start, so that a lost one shows."""
    clip = build_clip(config).eval()
    with torch.no_grad():
        for parameter in clip.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return clip


def random_adapters(model: InstClip) -> None:
    """Moves adapters, instance tokens and register away from their start, as training does."""
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def trained_norms(network: torch.nn.Module) -> None:
    """Moves norms and biases away from their neutral start, so that a lost one shows."""
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 1 and tensor.is_floating_point() and "criterion" not in name:
            tensor.add_(0.2 * torch.randn_like(tensor))
        if "running_var" in name:
            tensor.abs_().add_(0.1)
