"""ResNet with its batch norms folded into the convolutions (He et al. 2016)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openvis_model.folded.layers import Convolution, Weights


class Resnet(nn.Module):
    """A backbone: feature maps at 1/4, 1/8, 1/16 and 1/32 of the pixels.

    Args:
        weights: those of transformers' `ResNetBackbone`, whose layers tell basic blocks from bottlenecks. Bottlenecks
            have their stride in the second convolution.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.stem = _convolution(weights.under("embedder.embedder"), stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    ResidualBlock(block, stride=2 if number and not position else 1)
                    for position, block in enumerate(stage.items("layers"))
                )
            )
            for number, stage in enumerate(weights.items("encoder.stages"))
        )

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Returns the feature maps, the largest first."""
        x = self.stem(pixels.contiguous(memory_format=torch.channels_last)).relu_()
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class ResidualBlock(nn.Module):
    """Two or three convolutions beside a shortcut."""

    def __init__(self, weights: Weights, *, stride: int) -> None:
        super().__init__()
        layers = weights.items("layer")
        strided = len(layers) - 2  # the first of two, the second of three
        self.layers = nn.ModuleList(
            _convolution(layer, stride=stride if number == strided else 1) for number, layer in enumerate(layers)
        )
        shortcut = weights.under("shortcut")
        has_one = shortcut.get("convolution.weight") is not None
        self.shortcut = _convolution(shortcut, stride=stride) if has_one else nn.Identity()

    def forward(self, x: Float[Tensor, "B in H W"]) -> Float[Tensor, "B out h w"]:
        """Returns relu(shortcut of x + convolutions of x)."""
        residual = self.shortcut(x)
        *first, last = self.layers
        for layer in first:
            x = layer(x).relu_()
        out: Tensor = last(x).add_(residual).relu_()
        return out


def _convolution(weights: Weights, *, stride: int) -> Convolution:
    return Convolution.with_batch_norm(weights.under("convolution"), weights.under("normalization"), stride=stride)
