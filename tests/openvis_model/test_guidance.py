import math
from typing import get_args

import pytest
import torch

from openvis_model.guidance import instance_guidance
from openvis_model.options import Guidance, Resampling

# One mask of 2 × 4 logits on a grid of 1 × 2 patches, four logits each. ln 3 has probability 3/4, -ln 3 has 1/4.
LN3 = math.log(3)
LOGITS = torch.tensor([[[[LN3, -LN3, -LN3, -LN3], [LN3, LN3, -9.0, -9.0]]]])


@pytest.mark.parametrize(
    ("resampling", "expected"),
    [
        # Left: (3/4 + 1/4 + 3/4 + 3/4) / 4 = 5/8. Right: (1/4 + 1/4 + 2 · p(-9)) / 4, p(-9) = 1.234e-4: 0.125062.
        ("log_mean_probability", [math.log(5 / 8), math.log(0.125062)]),
        ("logit_mean_probability", [math.log((5 / 8) / (3 / 8)), math.log(0.125062 / 0.874938)]),
        ("mean_logit", [LN3 / 2, (-2 * LN3 - 18) / 4]),
        ("max_logit", [LN3, -LN3]),
    ],
)
def test_logit_guidance_by_hand(resampling: Resampling, expected: list[float]) -> None:
    guidance = instance_guidance(LOGITS, (1, 2), guidance="logits", resampling=resampling)
    assert guidance.tolist()[0][0] == pytest.approx(expected, abs=1e-5)


def test_binary_guidance_opens_every_patch_that_the_mask_touches() -> None:
    logits = torch.tensor([[[[0.1, -5.0, -5.0, -0.1], [-5.0, -5.0, -5.0, 0.0]]]])
    guidance = instance_guidance(logits, (1, 2), guidance="binary", resampling="mean_logit")
    assert guidance.tolist() == [[[0.0, -math.inf]]]


@pytest.mark.parametrize("guidance", get_args(Guidance))
@pytest.mark.parametrize("resampling", get_args(Resampling))
def test_frames_without_masks(guidance: Guidance, resampling: Resampling) -> None:
    result = instance_guidance(torch.zeros(2, 0, 8, 8), (2, 3), guidance=guidance, resampling=resampling)
    assert result.shape == (2, 0, 6)


def test_no_guidance() -> None:
    guidance = instance_guidance(LOGITS, (1, 2), guidance="none", resampling="mean_logit")
    assert guidance.tolist() == [[[0.0, 0.0]]]


def test_patches_are_in_row_order_and_need_not_divide_the_mask() -> None:
    logits = torch.full((1, 1, 7, 9), -8.0)
    logits[0, 0, 6, 8] = 8  # bottom right corner
    guidance = instance_guidance(logits, (2, 3), guidance="logits", resampling="log_mean_probability")
    assert guidance.shape == (1, 1, 6)
    assert guidance.argmax() == 5


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(
    ("size", "grid"), [((96, 160), (12, 20)), ((96, 160), (27, 46)), ((24, 32), (12, 16)), ((5, 7), (12, 16))]
)
def test_means_are_those_of_pooling(size: tuple[int, int], grid: tuple[int, int], autocast: bool) -> None:
    """To rounding, of sums of some dozen numbers; also where patches overlap or are smaller than a logit."""
    logits = 8 * torch.randn(2, 5, *size)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        guidance = instance_guidance(logits, grid, guidance="logits", resampling="log_mean_probability")
    expected = torch.nn.functional.adaptive_avg_pool2d(logits.double().sigmoid(), grid).log().flatten(2)
    torch.testing.assert_close(guidance.double(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("resampling", get_args(Resampling))
@pytest.mark.parametrize("value", [-1e4, 1e4])
def test_extreme_masks_stay_finite(resampling: Resampling, value: float) -> None:
    guidance = instance_guidance(torch.full((1, 1, 4, 4), value), (2, 2), guidance="logits", resampling=resampling)
    assert torch.isfinite(guidance).all()


def test_half_precision_masks_are_computed_in_float32() -> None:
    guidance = instance_guidance(LOGITS.bfloat16(), (1, 2), guidance="logits", resampling="log_mean_probability")
    assert guidance.dtype == torch.float32


@pytest.mark.usefixtures("as_user")
def test_unknown_variants_are_refused() -> None:
    with pytest.raises(ValueError, match="guidance.*'soft'.*binary"):
        instance_guidance(LOGITS, (1, 2), guidance="soft", resampling="max_logit")
    with pytest.raises(ValueError, match="resampling.*'nearest'.*max_logit"):
        instance_guidance(LOGITS, (1, 2), guidance="logits", resampling="nearest")
