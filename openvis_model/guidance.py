"""Instance guidance: turns mask proposals into rows of an attention mask (OpenVIS, Fig. 3a)."""

from typing import get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from openvis_model.options import Guidance, Resampling

FLOOR = 1e-30
"""Smallest mean mask probability of a patch; its logarithm (-69) already suppresses all attention in float32."""


def instance_guidance(
    mask_logits: Float[Tensor, "B N h w"],
    grid: tuple[int, int],
    *,
    guidance: Guidance,
    resampling: Resampling,
) -> Float[Tensor, "B N P"]:
    """Computes what is added to the attention scores of each instance token on each patch (OpenVIS, Eq. 3).

    `none` is zero everywhere. `binary` is zero on every patch that the mask touches and -inf elsewhere. `logits` grades
    the attention by the mask logits, resampled to the patch grid in one of four ways:

    - `log_mean_probability` (default): log of the mean mask probability over the patch, at most 0;
    - `logit_mean_probability`: logit of that mean;
    - `mean_logit`: mean of the logits; strongly negative background drowns objects smaller than a patch;
    - `max_logit`: largest logit of the patch.

    The result is float32 whatever the autocast dtype, since logarithms of small means exceed the range of half floats.

    Args:
        mask_logits: N mask proposals per frame, at any resolution, covering the frame.
        grid: rows and columns of the patch grid; P = rows · columns.
        guidance: kind of guidance.
        resampling: how `logits` reach the grid.

    Raises:
        ValueError: for an unknown guidance or resampling.
    """
    logits = mask_logits.float()
    if not logits.shape[1]:  # torch's largest of a patch wants masks
        return logits.new_zeros(len(logits), 0, grid[0] * grid[1])
    if guidance == "none":
        return logits.new_zeros(*logits.shape[:2], grid[0] * grid[1])
    if guidance == "binary":
        touched = F.adaptive_max_pool2d(logits, grid) > 0
        return logits.new_zeros(touched.shape).masked_fill(~touched, float("-inf")).flatten(2)
    if guidance != "logits":
        raise ValueError(f"guidance: unknown value {guidance!r}; choose from {get_args(Guidance)}")
    if resampling == "mean_logit":
        return F.adaptive_avg_pool2d(logits, grid).flatten(2)
    if resampling == "max_logit":
        return F.adaptive_max_pool2d(logits, grid).flatten(2)
    probability = _means(logits.sigmoid(), grid).clamp(min=FLOOR).flatten(2)
    if resampling == "log_mean_probability":
        return probability.log()
    if resampling == "logit_mean_probability":
        return probability.clamp(max=1 - 1e-6).logit()
    raise ValueError(f"resampling: unknown value {resampling!r}; choose from {get_args(Resampling)}")


def _means(values: Float[Tensor, "B N h w"], grid: tuple[int, int]) -> Float[Tensor, "B N rows columns"]:
    """Returns `adaptive_avg_pool2d` of finite values as two products, which are faster."""
    rows, columns = (
        F.adaptive_avg_pool1d(torch.eye(size, dtype=values.dtype, device=values.device)[None], cells)[0]
        for size, cells in zip(values.shape[2:], grid, strict=True)
    )
    with torch.autocast(values.device.type, enabled=False):
        return rows.mT @ values @ columns
