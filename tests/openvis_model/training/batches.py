"""Masks, logits and targets for tests of the set loss."""

import torch
from torch import Tensor

from openvis_model.training.config import SetCriterionConfig

CONFIG = SetCriterionConfig(num_points=64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_batch(layers: int = 2, objects: tuple[int, ...] = (2, 3)) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Mask logits [L, B, 5, 12, 16], objectness logits [L, B, 5] and a frame of 48 x 64 per entry of `objects`."""
    L, B, N, generator = layers, len(objects), 5, seeded(3)
    masks = torch.randn(L, B, N, 12, 16, generator=generator) * 3
    objectness = torch.randn(L, B, N, generator=generator)
    targets = [torch.rand(M, 48, 64, generator=generator) > 0.6 for M in objects]
    return masks.requires_grad_(), objectness.requires_grad_(), targets


def quadrants(*wanted: int, size: int = 16) -> Tensor:
    """Masks that each cover one quarter of the frame: 0 and 1 on top, 2 and 3 below."""
    masks = torch.zeros(4, size, size, dtype=torch.bool)
    half = size // 2
    for quarter in range(4):
        row, column = divmod(quarter, 2)
        masks[quarter, row * half : (row + 1) * half, column * half : (column + 1) * half] = True
    return masks[list(wanted)]


def confident(masks: Tensor, logit: float = 8.0) -> Tensor:
    return torch.where(masks, logit, -logit)
