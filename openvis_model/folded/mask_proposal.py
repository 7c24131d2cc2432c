"""Mask2Former at inference: the last layer's proposals alone (Cheng et al. 2022; OpenVIS, Eq. 1)."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from openvis_model.folded.layers import Linear, Weights
from openvis_model.folded.mask_decoder import MaskDecoder
from openvis_model.folded.pixel_decoder import PixelDecoder
from openvis_model.folded.resnet import Resnet
from openvis_model.frames import to_pixels
from openvis_model.options import SIZE_DIVISOR, check_published
from openvis_model.proposals import IMAGENET_MEAN, IMAGENET_STD, Proposals, collapse
from openvis_model.working_size import working_size

TRAINING_ONLY = ("num_batches_tracked", "criterion.empty_weight", ".swin.layernorm.weight", ".swin.layernorm.bias")


class FoldedMaskProposal(nn.Module):
    """The numbers of a `Mask2Former` from fewer operations.

    Args:
        architecture: the `transformers` config of the network as plain values.
        state: the weights under transformers' names.
        short_side: working size of the frames, pixels.
        pixel_mean: mean of RGB, in [0, 1], that the weights were trained with.
        pixel_std: standard deviation of RGB, in the same scale.

    Raises:
        ValueError: for a field with another value than the published one, or weights that no part of this network uses.
    """

    def __init__(
        self,
        architecture: Mapping[str, Any],
        state: Mapping[str, Tensor],
        *,
        short_side: int,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        check_published(architecture, "mask_proposal.mask2former")
        self.short_side = short_side
        weights = Weights(state)
        heads = architecture.get("num_attention_heads", 8)
        pixel_level, transformer = (
            weights.under(f"model.{name}") for name in ("pixel_level_module", "transformer_module")
        )
        self.backbone = build_backbone(architecture["backbone_config"], pixel_level.under("encoder"))
        self.pixel_decoder = PixelDecoder(pixel_level.under("decoder"), heads=heads)
        self.decoder = MaskDecoder(transformer, pixel_level.under("decoder.mask_projection"), heads=heads)
        self.classify = Linear.of(weights.under("class_predictor"))
        if unused := sorted(name for name in weights.unused if not name.endswith(TRAINING_ONLY)):
            raise ValueError(f"mask_proposal: not Mask2Former as published, it also has {', '.join(unused[:3])}")
        like = self.decoder.queries
        self.register_buffer("mean", like.new_tensor(pixel_mean).view(3, 1, 1))
        self.register_buffer("std", like.new_tensor(pixel_std).view(3, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the height and width at which a frame of this size is seen, pixels."""
        return working_size(height, width, short_side=self.short_side, divisor=SIZE_DIVISOR)

    def forward(self, frames: Tensor) -> Proposals:
        """Returns the proposals for frames uint8 [T, H, W, 3], or for what `to_pixels` made of them at `input_size`.

        Raises:
            ValueError: for frames that `check_frames` refuses.
        """
        pixels = to_pixels(frames, self.input_size)
        levels, features = self.pixel_decoder(self.backbone((pixels - self.mean) / self.std))
        mask_logits, queries = self.decoder(levels, features)
        return Proposals(mask_logits, queries, collapse(self.classify(queries)))


class TransformersBackbone(nn.Module):
    """A backbone that transformers computes, with the weights of a checkpoint.

    Args:
        architecture: its config as plain values.
        weights: its weights.
    """

    def __init__(self, architecture: Mapping[str, Any], weights: Weights) -> None:
        super().__init__()
        from transformers import CONFIG_MAPPING, AutoBackbone  # takes seconds to import

        config = CONFIG_MAPPING[architecture["model_type"]].from_dict(dict(architecture))
        self.backbone = AutoBackbone.from_config(config)
        self.backbone.load_state_dict({name: weights[name] for name in self.backbone.state_dict()}, assign=True)
        self.eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Returns the feature maps, the largest first."""
        return list(self.backbone(pixels).feature_maps)


def build_backbone(architecture: Mapping[str, Any], weights: Weights) -> nn.Module:
    """Builds the backbone of a checkpoint: ours for ResNets as published, and that of transformers for all others."""
    strided_elsewhere = any(
        architecture.get(name) for name in ("downsample_in_first_stage", "downsample_in_bottleneck")
    )
    plain = architecture["model_type"] == "resnet" and architecture.get("hidden_act", "relu") == "relu"
    return Resnet(weights) if plain and not strided_elsewhere else TransformersBackbone(architecture, weights)
