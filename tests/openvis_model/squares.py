"""Objects that are squares in a frame of 20 × 20 pixels; their tokens are unit vectors, so that equal ones match."""

from collections.abc import Sequence

import torch

from openvis_model.instances import Instances
from openvis_model.rle import encode

AXES = torch.eye(4)

Square = tuple[int, int, int, int]

A, B, C = (0, 0, 4, 4), (8, 0, 4, 4), (0, 8, 4, 4)


def frame(*squares: Square, objectness: Sequence[float] | float = 0.9, axes: Sequence[int] | None = None) -> Instances:
    """Instances with these boxes as masks."""
    masks = torch.zeros(len(squares), 20, 20, dtype=torch.bool)
    for mask, (x, y, width, height) in zip(masks, squares, strict=True):
        mask[y : y + height, x : x + width] = True
    tokens = AXES[list(range(len(squares)) if axes is None else axes)]
    levels = torch.tensor(objectness).expand(len(squares))
    colours = torch.zeros(len(squares), 3)
    return Instances(levels, tokens, tokens, torch.arange(len(squares)), colours, encode(masks))
