import numpy as np
import pytest
from PIL import Image

from openvis_model.bit_depth import eight_bit


def test_sixteen_bits_become_eight() -> None:
    deep = Image.fromarray(np.array([[0, 255, 256], [32_768, 60_000, 65_535]], np.uint16))
    assert np.asarray(eight_bit(deep)).tolist() == [[0, 0, 1], [128, 234, 255]]


def test_others_stay_or_are_refused() -> None:
    colour = Image.new("RGB", (3, 2), (1, 2, 3))
    assert eight_bit(colour) is colour
    for mode in ("I", "F"):
        with pytest.raises(ValueError, match="has 32 bits a pixel; save it with 8 or 16"):
            eight_bit(Image.new(mode, (2, 2)))
