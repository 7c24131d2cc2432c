"""Sine position embeddings, and a memory for what depends on the size of the feature maps alone."""

import math
import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

Size = tuple[int, int]
Made = TypeVar("Made")

SIZES = 16
"""Values that are remembered; a run over an archive meets few sizes, one for each shape of its videos."""


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


class BySize:
    """Remembers values that depend on sizes, a device and a dtype.

    Each thread has its own: on a GPU, it may have a stream of its own, and a value is there only for those that wait.
    """

    def __init__(self) -> None:
        self.made: dict[object, object] = {}

    def __call__(self, sizes: tuple[Size, ...], like: Tensor, make: Callable[[], Made]) -> Made:
        """Returns what `make` returned for the same sizes, device and dtype, or calls it; always in full precision."""
        with torch.autocast(like.device.type, enabled=False):
            if torch.compiler.is_compiling():  # what a graph remembers would have it compiled again
                return make()
            key = (threading.get_ident(), sizes, like.device, like.dtype)
            made: Made | None = self.made.get(key)  # type: ignore[assignment] # of the key's kind
            if made is None:
                if len(self.made) >= SIZES:
                    self.made.clear()
                self.made[key] = made = make()
        return made
