"""The mean colour of each instance."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor


def mean_colours(
    frames: UInt8[Tensor, "T H W 3"], mask_logits: Float[Tensor, "instances h w"], counts: Sequence[int]
) -> Float[Tensor, "instances 3"]:
    """Returns the mean colour of what each mask shows, RGB from 0 to 255; black for an empty mask.

    A pixel weighs as much as its logit is above zero: little at the border, where colours mix.

    Args:
        frames: of any size.
        mask_logits: of the instances of all frames, in their order.
        counts: instances of each frame.
    """
    height, width = mask_logits.shape[1:]
    small = F.adaptive_avg_pool2d(frames.permute(0, 3, 1, 2).float(), (height, width)).flatten(2).mT
    weights = mask_logits.float().clamp(min=0).flatten(1)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    with torch.autocast(frames.device.type, enabled=False):
        return torch.cat([part @ pixels for part, pixels in zip(weights.split(list(counts)), small, strict=True)])
