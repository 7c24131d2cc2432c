"""Convolutions in place of a vision transformer's patch projection (Xiao et al. 2021)."""

import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ConvolutionalStem(nn.Module):
    """Pixels to patch tokens through a small residual network, which sees what lies around a patch too.

    The last but two halvings of the resolution have one residual block, the last one has two. A frozen stem keeps its
    batch statistics, also in training mode.

    Args:
        width: channels of a patch token.
        patch_size: pixels, a power of 2 of at least 8.

    Raises:
        ValueError: for another patch size.
    """

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        halvings = int(math.log2(patch_size))
        if 2**halvings != patch_size or halvings < 3:
            raise ValueError(f"clip: a convolutional stem needs patches of 8, 16, 32, … pixels, got {patch_size}")
        layers: list[nn.Module] = []
        channels, blocks = 3, [0] * (halvings - 2) + [1, 2]
        for step, count in enumerate(blocks):
            next_channels = 2 ** min(5 + step, 7)
            layers += [_convolution(channels, next_channels, stride=2), nn.ReLU()]
            layers += [ResidualBlock(next_channels) for _ in range(count)]
            channels = next_channels
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, width, 1))

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Patch tokens on their grid."""
        tokens: Tensor = self.layers(pixels)
        return tokens

    def train(self, mode: bool = True) -> "ConvolutionalStem":
        """Switches to training, where a frozen stem keeps its batch statistics."""
        super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))
        return self


class ResidualBlock(nn.Module):
    """Two convolutions beside an identity (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (_convolution(channels, channels, stride=1) for _ in range(2))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """The same shape."""
        return F.relu(x + self.second(F.relu(self.first(x))))


def _convolution(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs))
