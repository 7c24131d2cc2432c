"""Prepares video frames for the networks: checks, resizes and scales them to [0, 1].

A network sees the whole frame at a working size whose sides are multiples of what it needs: 32 pixels for Mask2Former,
a patch for CLIP (also 32 pixels in ViT-B/32). The frame is stretched to that size by a few per cent instead of padded,
so mask logits, guidance and masks cover exactly the frame, and no pixel or patch is padding. Proposal networks with a
square input are the exception; they cut off the padding's logits themselves.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def check_frames(frames: object) -> None:
    """Checks that frames are a non-empty uint8 [T, H, W, 3] tensor.

    Raises:
        ValueError: names what was expected, what was given, and the remedy.
    """
    if not isinstance(frames, Tensor):
        raise ValueError(f"frames: expected a torch tensor, got {type(frames).__name__}; use torch.from_numpy")
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames: expected shape [T, H, W, 3], got {list(frames.shape)}; permute or stack them")
    if frames.dtype != torch.uint8:
        raise ValueError(f"frames: expected uint8 values 0-255, got {frames.dtype}; pass frames as decoded")
    if 0 in frames.shape:
        raise ValueError(f"frames: shape {list(frames.shape)} has no pixels; skip empty batches")


def to_pixels(frames: Tensor, input_size: Callable[[int, int], tuple[int, int]]) -> Float[Tensor, "T 3 h w"]:
    """Converts uint8 frames [T, H, W, 3] to floats in [0, 1] of the size at which a network sees them.

    Resampling is bilinear with antialiasing; frames that already have that size are not resampled. What was made for
    another network that sees the same size is returned as it is.

    Args:
        frames: the frames, or what this function made of them.
        input_size: returns the height and width for those of a frame, pixels.

    Raises:
        ValueError: for frames that `check_frames` refuses.
    """
    if isinstance(frames, Tensor) and frames.is_floating_point() and frames.ndim == 4 and frames.shape[1] == 3:
        return frames
    check_frames(frames)
    size = input_size(frames.shape[1], frames.shape[2])
    pixels = frames.permute(0, 3, 1, 2).float().div_(255)
    if pixels.shape[-2:] != size:
        pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return pixels.contiguous()
