import torch

from openvis_model.by_size import SIZES, BySize


def test_values_are_made_once_for_each_size_and_in_full_precision() -> None:
    by_size, x = BySize(), torch.randn(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        first = by_size(((1, 2),), x, lambda: x @ x)
    assert first.dtype == torch.float32
    assert by_size(((1, 2),), x, lambda: x) is first
    assert by_size(((1, 2),), x.double(), lambda: x.double()).dtype == torch.float64
    assert by_size(((2, 1),), x, lambda: x) is x


def test_few_sizes_are_remembered() -> None:
    by_size = BySize()
    for height in range(3 * SIZES):
        assert by_size(((height, 1),), torch.zeros(1), lambda height=height: height + 1) == height + 1
        assert len(by_size.made) <= SIZES
