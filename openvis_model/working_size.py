"""The size at which a network sees a frame; does not import torch, so that decoding processes stay small."""

LONG_SIDE_LIMIT = 1333
"""Longest working side, pixels, as in Mask2Former's test settings; bounds memory for panoramas."""


def working_size(height: int, width: int, *, short_side: int, divisor: int) -> tuple[int, int]:
    """Returns the working (height, width), pixels: shorter side near `short_side`, sides multiples of `divisor`."""
    scale = min(short_side / min(height, width), max(LONG_SIDE_LIMIT, short_side) / max(height, width))
    return (
        max(1, round(height * scale / divisor)) * divisor,
        max(1, round(width * scale / divisor)) * divisor,
    )
