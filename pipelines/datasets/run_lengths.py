"""A check of many compressed masks at once: that they are run lengths that fill their frames."""

from collections.abc import Sequence

import numpy as np

from openvis_model import rle
from pipelines.datasets.annotations import Mask

_CHUNK_CHARACTERS = 1 << 20  # read at a time, with up to 50 bytes for each


def find_corrupt(masks: Sequence[Mask]) -> tuple[int, str] | None:
    """Returns the position of the first mask that is not COCO compressed run lengths of its frame, and what is wrong.

    None if all are. Frames must have pixels. pycocotools would take such a mask without a word, and count garbage.
    """
    start = size = 0
    for stop, mask in enumerate(masks, start=1):
        size += len(mask.counts)
        if size < _CHUNK_CHARACTERS and stop < len(masks):
            continue
        if not _are_sound(masks[start:stop]):
            for position in range(start, stop):
                height, width, counts = masks[position]
                try:
                    rle.run_lengths((height, width), counts)
                except ValueError as error:
                    return position, str(error)
        start, size = stop, 0
    return None


def _are_sound(masks: Sequence[Mask]) -> bool:
    """Whether all masks can be read; `openvis_model.rle.run_lengths` for many of them."""
    characters = np.array([len(mask.counts) for mask in masks])
    text = np.frombuffer(b"".join(mask.counts for mask in masks), np.uint8) - 48  # wraps around below 0
    ends = characters.cumsum()
    if characters.min() == 0 or text.max() > 63 or (text[ends - 1] >= 32).any():
        return False
    last = np.flatnonzero(text < 32)
    runs = (text[last].astype(np.int64) ^ 16) - 16
    width = np.diff(last, prepend=-1)
    if width.max() > 7:
        return False
    longer = np.flatnonzero(width > 1)
    for place in range(1, 7):
        runs[longer] = runs[longer] * 32 + (text[last[longer] - place] & 31)
        longer = longer[width[longer] > place + 1]

    stops = np.searchsorted(last, ends)
    starts = np.append(0, stops[:-1])
    third = starts[stops - starts > 2]
    runs[third + 2] -= runs[third]  # the first three are stored as they are, later ones as differences to two before
    for parity in (0, 1):
        runs[parity::2] = runs[parity::2].cumsum()
    before = np.concatenate([[0, 0], runs])
    order = np.arange(len(runs)) - np.repeat(starts, stops - starts)
    runs -= np.where(order % 2, *(np.repeat(before[starts + odd], stops - starts) for odd in (1, 0)))
    pixels = np.array([mask.height * mask.width for mask in masks])
    return bool(runs.min() >= 0 and (np.add.reduceat(runs, starts) == pixels).all())
