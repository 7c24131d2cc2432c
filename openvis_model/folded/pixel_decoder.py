"""Mask2Former's pixel decoder: feature maps that know each other (Cheng et al. 2022)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openvis_model.by_size import BySize
from openvis_model.folded.deformable_attention import DeformableLayer, Grid
from openvis_model.folded.layers import ConvolutionGroupNorm, Weights
from openvis_model.folded.positions import sine_positions

LEVELS = 3
"""Feature maps that attend to each other: those at 1/32, 1/16 and 1/8 of the pixels."""


class PixelDecoder(nn.Module):
    """Lets the three smaller feature maps attend to each other, and adds the result to the largest one."""

    def __init__(self, weights: Weights, *, heads: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(ConvolutionGroupNorm(each) for each in weights.items("input_projections"))
        layers = weights.under("encoder").items("layers")
        self.layers = nn.ModuleList(DeformableLayer(each, heads=heads, levels=LEVELS) for each in layers)
        self.lateral = ConvolutionGroupNorm(weights.under("adapter_1"))
        self.blend = ConvolutionGroupNorm(weights.under("layer_1"))
        self.register_buffer("level_embed", weights["level_embed"])
        self.level_embed: Tensor
        self.by_size = BySize()

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], Float[Tensor, "B C h w"]]:
        """Returns the three smaller maps, the smallest first, and the largest one, all of one width.

        Args:
            maps: the backbone's four maps, the largest first.
        """
        largest, *smaller = maps
        projected = [project(each) for project, each in zip(self.project, smaller[::-1], strict=True)]
        sizes = tuple((each.shape[2], each.shape[3]) for each in projected)
        positions, grid = self.by_size(sizes, self.level_embed, lambda: self._positions(sizes))
        x = torch.cat([each.flatten(2).mT for each in projected], 1)
        for layer in self.layers:
            x = layer(x, positions, grid)
        levels = [
            level.mT.unflatten(2, size)
            for level, size in zip(x.split([height * width for height, width in sizes], 1), sizes, strict=True)
        ]
        lateral = self.lateral(largest)
        pixels = lateral + F.interpolate(levels[-1], size=lateral.shape[-2:], mode="bilinear")
        return levels, self.blend(pixels).relu_()

    def _positions(self, sizes: tuple[tuple[int, int], ...]) -> tuple[Tensor, Grid]:
        width = self.level_embed.shape[1]
        levels = [
            sine_positions(size, width, self.level_embed) + embed
            for size, embed in zip(sizes, self.level_embed, strict=True)
        ]
        return torch.cat(levels), Grid.of(sizes, self.level_embed)
