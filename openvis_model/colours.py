"""The mean colour of each instance."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def mean_colours(
    pixels: Float[Tensor, "T 3 H W"], mask_logits: Float[Tensor, "instances h w"], counts: Sequence[int]
) -> Float[Tensor, "instances 3"]:
    """Returns the mean colour of what each mask shows, RGB from 0 to 255; black for an empty mask.

    A pixel weighs as much as its logit is above zero: little at the border, where colours mix.

    Args:
        pixels: RGB of the frames in [0, 1], at any size.
        mask_logits: of the instances of all frames, in their order.
        counts: instances of each frame.
    """
    height, width = mask_logits.shape[1:]
    small = F.adaptive_avg_pool2d(pixels, (height, width))
    # The product has the sum of weights, too.
    with_ones = F.pad(255 * small, (0, 0, 0, 0, 0, 1), value=1.0).flatten(2).mT
    with torch.autocast(pixels.device.type, enabled=False):
        parts = zip(mask_logits.split(list(counts)), with_ones, strict=True)
        sums = torch.cat([part.float().clamp(min=0).flatten(1) @ colours for part, colours in parts])
        return sums[:, :3] / sums[:, 3:].clamp(min=torch.finfo(sums.dtype).tiny)
