"""Sine position embeddings."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from openvis_model.by_size import Size


def sine_positions(size: Size, channels: int, like: Tensor) -> Float[Tensor, "P {channels}"]:
    """Returns the position embedding of every place of a map, row by row (Carion et al. 2020).

    Rows and columns are numbered from 1 and scaled to (0, 2π]; half of the channels describe the row, half the column.

    Args:
        size: height and width of the map.
        channels: width of the embedding.
        like: a tensor with the device and the dtype of the result.
    """
    quarter = channels // 4
    wavelengths = 10000 ** (torch.arange(quarter, device=like.device, dtype=like.dtype) / quarter)
    axes = []
    for length in size:
        place = torch.arange(1, length + 1, device=like.device, dtype=like.dtype)
        angle = (place / (length + 1e-6) * 2 * math.pi)[:, None] / wavelengths
        axes.append(torch.stack([angle.sin(), angle.cos()], -1).flatten(1))
    rows, columns = axes
    height, width = size
    parts = [rows[:, None].expand(height, width, -1), columns.expand(height, width, -1)]
    return torch.cat(parts, -1).flatten(0, 1)
