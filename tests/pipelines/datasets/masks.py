"""Masks of all kinds for tests of run lengths."""

from typing import Any

import numpy as np
from pycocotools import mask as coco

from pipelines.datasets.annotations import Mask


def encode(dense: np.ndarray) -> Mask:  # type: ignore[type-arg]
    return Mask(*dense.shape, coco.encode(np.asfortranarray(dense.astype(np.uint8)))["counts"])


def random_masks(n: int) -> list[Mask]:
    """Empty, full, of a pixel or column, noise and blocks; numbers of one to four characters."""
    rng = np.random.default_rng(0)
    masks = []
    for _ in range(n):
        height, width = (int(side) for side in rng.choice([1, 2, 7, 40, 700], 2))
        dense = rng.random((height, width)) < rng.choice([0, 0.001, 0.5, 0.9, 1])
        y, x = rng.integers(0, height, 2), rng.integers(0, width, 2)
        dense[y.min() : y.max(), x.min() : x.max()] = rng.random() < 0.5
        masks.append(encode(dense))
    return masks


def special_masks() -> list[Mask]:
    """Masks of 5 x 3 that touch the first or last pixel, a row or a column, and runs of no pixels."""
    every = np.arange(15).reshape(3, 5).T
    kinds = [every < 0, every >= 0, every == 0, every == 14, every != 0, every != 14, every % 5 == 2, every // 5 == 1]
    runs = ["00407", "00?", "?0", "0?0", "2003:", "500000:", "0?0A", "00000?"]
    return [*map(encode, kinds), *(Mask(5, 3, text.encode()) for text in runs)]


def plain(mask: Mask) -> dict[str, Any]:
    return {"size": mask[:2], "counts": mask.counts}
