"""A convolutional replacement for a vision transformer's patch projection (Xiao et al. 2021)."""

import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ConvolutionalStem(nn.Module):
    """A small residual network from pixels to patch tokens; a token also sees the surroundings of its patch.

    Each step halves the resolution. The last but one is followed by one residual block, the last by two. A frozen stem
    keeps its batch statistics even in training mode.

    Args:
        width: channels of a patch token.
        patch_size: pixels, a power of 2 of at least 8.

    Raises:
        ValueError: for a patch size that is not such a power of 2.
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
        """Returns the patch tokens on their grid, one per patch."""
        tokens: Tensor = self.layers(pixels)
        return tokens

    def train(self, mode: bool = True) -> "ConvolutionalStem":
        """Switches to training or evaluation; a frozen stem stays in evaluation mode."""
        super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))
        return self


class ResidualBlock(nn.Module):
    """Two convolutions beside an identity (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (_convolution(channels, channels, stride=1) for _ in range(2))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Returns relu(x + convolutions of x), of the same shape."""
        return F.relu(x + self.second(F.relu(self.first(x))))


def _convolution(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs))
