from typing import Any

import numpy as np
import pytest
import torch

from pipelines.training.packing import pack, unpack


@pytest.mark.parametrize(
    "value",
    [
        None,
        ("a", 3),
        {"odd": np.arange(5, dtype=np.uint8), "wide": np.arange(6.0).reshape(2, 3)},
        [np.zeros((0, 4), bool), np.arange(12).reshape(3, 4)[:, ::2], np.asfortranarray(np.arange(6).reshape(2, 3))],
    ],
)
def test_values_come_back(value: Any) -> None:
    np.testing.assert_equal(unpack(pack(value)), value)


def test_arrays_lie_in_the_tensor() -> None:
    packed = pack([np.zeros(3, np.uint8), np.arange(4.0)])
    assert packed.dtype == torch.uint8
    small, wide = unpack(packed)
    assert small.flags.aligned
    assert wide.flags.aligned
    packed[:] = 0
    assert not wide.any()
