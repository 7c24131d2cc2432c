from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco
from torch import Tensor

from openvis_model import rle
from openvis_model.rle import RleMasks, decode, encode, encode_logits, run_lengths

SHAPES = [(1, 1), (1, 9), (9, 1), (2, 2), (5, 7), (16, 16), (33, 65), (64, 31), (120, 161)]
# From logits to frame: up by 4, up by a fraction, same, down, up and down at once, from and to single rows and columns.
RESIZES = [
    ((24, 40), (96, 160)),
    ((24, 40), (97, 131)),
    ((24, 40), (24, 40)),
    ((24, 40), (10, 17)),
    ((24, 40), (7, 200)),
    ((23, 41), (175, 9)),
    ((1, 1), (3, 4)),
    ((1, 12), (5, 30)),
    ((12, 1), (30, 5)),
    ((13, 17), (1, 1)),
    ((13, 17), (1, 40)),
    ((13, 17), (40, 1)),
]


def noise(n: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(n, *size, generator=torch.Generator().manual_seed(seed))


def smooth(n: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    return F.interpolate(noise(n, (5, 6), seed)[None], size, mode="bicubic")[0]


def assert_is_coco(masks: RleMasks, dense: Tensor) -> None:
    """Everything is what pycocotools says of the dense masks, byte for byte."""
    expected = coco.encode(np.asfortranarray(dense.permute(1, 2, 0).to(torch.uint8).numpy()))
    assert masks.to_coco() == expected
    assert masks.size == tuple(dense.shape[1:])
    assert len(masks) == len(dense)
    np.testing.assert_array_equal(masks.areas, coco.area(expected))
    np.testing.assert_array_equal(masks.boxes, coco.toBbox(expected))


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("level", [-1.5, 0.0, 1.5])
def test_dense_masks_equal_pycocotools(size: tuple[int, int], level: float) -> None:
    dense = torch.cat([noise(20, size), smooth(20, size)]) > level
    assert_is_coco(encode(dense), dense)


@pytest.mark.parametrize("size", SHAPES)
def test_corner_cases_equal_pycocotools(size: tuple[int, int]) -> None:
    dense = torch.zeros(10, *size, dtype=torch.bool)
    dense[1] = True
    for i, (y, x) in enumerate([(0, 0), (0, -1), (-1, 0), (-1, -1)]):
        dense[2 + i, y, x] = True
    dense[6, size[0] // 2] = True  # a row
    dense[7, :, size[1] // 2] = True  # a column
    dense[8, :, size[1] // 2 :] = True  # one run over several columns
    dense[9, 0, 0] = True  # the mask before ends in foreground: neither change may cancel the other
    assert_is_coco(encode(dense), dense)
    assert encode_logits(dense.float(), size) == encode(dense)


def test_long_runs_take_several_characters() -> None:
    dense = torch.zeros(4, 4000, 3000, dtype=torch.bool)
    dense[1] = True
    dense[2, 17, 5] = dense[2, 3990, 2990] = dense[2, 3999, 2999] = True
    dense[3, 1000:, 1000:2000] = True
    masks = encode(dense)
    assert_is_coco(masks, dense)
    assert len(masks.counts[0]) == 5  # 12,000,000 needs 24 bits and a sign
    assert [decode(masks.size, counts).sum() for counts in masks.counts] == masks.areas.tolist()


@pytest.mark.parametrize(("logit_size", "size"), RESIZES)
@pytest.mark.parametrize("make", [smooth, noise])
def test_logits_equal_interpolated_masks(
    make: Callable[[int, tuple[int, int]], Tensor], logit_size: tuple[int, int], size: tuple[int, int]
) -> None:
    logits = make(24, logit_size)
    logits[5], logits[11] = -logits[5].abs() - 0.1, logits[11].abs() + 0.1  # empty and full
    values = F.interpolate(logits.double()[None], size, mode="bilinear", align_corners=False)[0]
    assert values.abs().min() > 1e-9, "a pixel on the knife's edge proves nothing: take another seed"
    assert_is_coco(encode_logits(logits, size), values > 0)


def test_hand_worked_frame() -> None:
    # Two columns of two knots, [1, -3] and [-3, 1], on four rows: row y lies at (y + 0.5) * 2 / 4 - 0.5, clamped to
    # [0, 1], so at 0, 1/4, 3/4, 1. Left column: 1, 1 - 4/4 = 0, 1 - 3 = -2, -3: only row 0 is above 0. Right column,
    # mirrored: -3, -2, 0, 1: only row 3 is. Column by column this is 1000 0001: runs 0, 1, 6, 1. The fourth is stored
    # as 1 - 1 = 0, and numbers below 16 are single characters from '0' on.
    masks = encode_logits(torch.tensor([[[1.0, -3.0], [-3.0, 1.0]]]), (4, 2))
    assert masks.counts == (b"0160",)
    assert masks.areas.tolist() == [2]
    assert masks.boxes.tolist() == [[0, 0, 2, 4]]
    assert run_lengths((4, 2), b"0160").tolist() == [0, 1, 6, 1]
    assert decode((4, 2), b"0160").tolist() == [[1, 0], [0, 0], [0, 0], [0, 1]]


def test_rounding_never_moves_a_change_past_a_logit() -> None:
    choices = torch.tensor([-torch.inf, -3e38, -1.0, -1e-30, -1e-45, 0.0, 1e-45, 1e-30, 1.0, 3e38, torch.inf])
    logits = choices[torch.randint(len(choices), (200, 9, 11), generator=torch.Generator().manual_seed(0))]
    assert encode_logits(logits, (9, 11)) == encode(logits > 0)
    # At three times the size every logit still has its pixel, the middle one of nine.
    centres = [decode((27, 33), counts)[1::3, 1::3] for counts in encode_logits(logits, (27, 33)).counts]
    np.testing.assert_array_equal(centres, logits > 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types(dtype: torch.dtype) -> None:
    logits = smooth(12, (24, 40)).to(dtype)
    assert encode_logits(logits, (90, 155)) == encode_logits(logits.float(), (90, 155))


def test_logits_may_be_strided_and_need_gradients() -> None:
    logits = smooth(12, (24, 40))
    strided = logits.permute(2, 0, 1).contiguous().permute(1, 2, 0).requires_grad_()
    assert encode_logits(strided, (90, 155)) == encode_logits(logits, (90, 155))


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = smooth(7, (24, 40))
    whole = encode_logits(logits, (90, 155))
    monkeypatch.setattr(rle, "_MAX_VISITS", max(rle._Cells.of(logits, (90, 155)).counts) * 2)
    parts = encode_logits(logits, (90, 155))
    assert parts == whole
    np.testing.assert_array_equal(parts.areas, whole.areas)
    np.testing.assert_array_equal(parts.boxes, whole.boxes)


def test_no_masks() -> None:
    for masks in (encode_logits(torch.zeros(0, 4, 5), (8, 9)), encode(torch.zeros(0, 8, 9, dtype=torch.bool))):
        assert (len(masks), masks.size, masks.counts, masks.to_coco()) == (0, (8, 9), (), [])
        assert (masks.areas.shape, masks.boxes.shape) == ((0,), (0, 4))


@pytest.mark.parametrize("size", SHAPES)
def test_decode_equals_pycocotools(size: tuple[int, int]) -> None:
    dense = torch.cat([noise(10, size), smooth(10, size), noise(1, size).abs(), -noise(1, size).abs()]) > 0
    masks = encode(dense)
    decoded = [decode(size, counts) for counts in masks.counts]
    np.testing.assert_array_equal(decoded, dense)
    np.testing.assert_array_equal(np.stack(decoded, -1), coco.decode(masks.to_coco()))
    assert [run_lengths(size, counts)[1::2].sum() for counts in masks.counts] == masks.areas.tolist()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (b"", "at least one"),
        (b"01 60", "from '0' to 'o'"),
        (b"01\xff60", "from '0' to 'o'"),
        (b"016P", "truncated"),
        (b"P", "truncated"),
        (b"016", r"sum 4 \* 2, got 7"),
        (b"0161", r"sum 4 \* 2, got 9"),
        (b"5N5", r"sum 4 \* 2"),  # 5 - 2 + 5 is 8, yet no run has -2 pixels
        (b"o" * 40 + b"0", "41 characters"),
    ],
)
def test_malformed_counts_say_what_is_wrong(counts: bytes, message: str) -> None:
    for read in (run_lengths, decode):
        with pytest.raises(ValueError, match=message):
            read((4, 2), counts)


def test_nan_is_an_error() -> None:
    logits = smooth(3, (6, 7))
    logits[1, 2, 3] = torch.nan
    with pytest.raises(ValueError, match="mask_logits has NaN"):
        encode_logits(logits, (12, 14))


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("logits", "size", "message"),
    [
        (torch.zeros(4, 5), (8, 10), r"mask_logits must be floating point \[N, height, width\].*\[4, 5\]"),
        (torch.zeros(1, 4, 5, dtype=torch.int64), (8, 10), "mask_logits must be floating point.*torch.int64"),
        (torch.zeros(1, 0, 5), (8, 10), r"mask_logits must .*\[1, 0, 5\]"),
        (torch.zeros(1, 4, 5), (8, 0), r"size must be .*\(8, 0\)"),
        (torch.zeros(1, 4, 5), (-8, 10), r"size must be .*\(-8, 10\)"),
    ],
)
def test_wrong_logits_are_errors(logits: Tensor, size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_logits(logits, size)


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(("shape", "dtype"), [((4, 5), torch.bool), ((1, 4, 5), torch.uint8), ((1, 4, 0), torch.bool)])
def test_wrong_masks_are_errors(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"masks must be bool \[N, height, width\]"):
        encode(torch.zeros(shape, dtype=dtype))


def test_masks_are_taken_and_made_dense() -> None:
    dense = torch.rand(4, 5, 7, generator=torch.Generator().manual_seed(0)) > 0.6
    masks = encode(dense).take(np.array([3, 1]))
    assert np.array_equal(masks.to_dense(), dense[[3, 1]].numpy())
    assert masks == encode(dense[[3, 1]])
    assert masks.boxes.tolist() == encode(dense[[3, 1]]).boxes.tolist()
    assert encode(dense).take(np.array([], dtype=np.int64)).to_dense().shape == (0, 5, 7)
