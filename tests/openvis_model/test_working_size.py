import pytest

from openvis_model.working_size import working_size


@pytest.mark.parametrize(
    ("frame", "short_side", "expected"),
    [
        ((720, 1280), 384, (384, 672)),  # 1280 · 384 / 720 = 682.7, and 21.3 · 32 rounds to 21 · 32
        ((1280, 720), 384, (672, 384)),
        ((384, 640), 384, (384, 640)),
        ((96, 96), 384, (384, 384)),
        ((300, 4000), 384, (96, 1344)),  # the long side is limited to 1333: 300 · 1333 / 4000 = 100 rounds to 96
        ((2, 4000), 384, (32, 1344)),
        ((100, 150), 96, (96, 128)),  # 150 · 96 / 100 = 144 = 4.5 · 32, which rounds to the even 4
    ],
)
def test_working_size(frame: tuple[int, int], short_side: int, expected: tuple[int, int]) -> None:
    assert working_size(*frame, short_side=short_side, divisor=32) == expected
