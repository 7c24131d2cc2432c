from fractions import Fraction

import numpy as np
import pytest

from pipelines.video.options import Sampling
from pipelines.video.plan import select


def test_sampling_by_hand() -> None:
    times = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 1.5, 1.6, 2.0])
    assert select(Sampling(), times, 1e-6).tolist() == list(range(8))
    assert select(Sampling(stride=3), times, 1e-6).tolist() == [0, 3, 6]
    assert select(Sampling(fps=5), times, 1e-6).tolist() == [0, 2, 4, 5, 6, 7]
    assert select(Sampling(fps=1), times, 1e-6).tolist() == [0, 5, 7]
    assert select(Sampling(fps=1000), times, 1e-6).tolist() == list(range(8))


def test_further_frames_are_kept_by_position_and_by_when_they_are_shown() -> None:
    times = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 1.5, 1.6, 2.0])
    assert select(Sampling(stride=6, also=(4, 0, 99)), times, 1e-6).tolist() == [0, 4, 6]
    assert select(Sampling(stride=6, also_s=(0.1, 0.39, 1.49, 99.0)), times, 1e-6).tolist() == [0, 1, 3, 4, 6, 7]
    assert select(Sampling(fps=1, also=(1,), also_s=(0.2999999,)), times, 1e-6).tolist() == [0, 1, 3, 5, 7]
    thirds = np.arange(20) / 30  # which nobody writes to the last digit
    assert select(Sampling(stride=3, also_s=(0.333,)), thirds, 1e-6).tolist() == [0, 3, 6, 9, 10, 12, 15, 18]


@pytest.mark.parametrize("fps", [1, 5, 7.5, 12, 24, 30, 60])
def test_sampling_is_the_first_frame_at_or_after_each_tick(fps: float) -> None:
    exact = [Fraction(i, 24) for i in range(100)]
    wanted = {
        next(i for i, time in enumerate(exact) if time >= k / Fraction(fps))
        for k in range(300)
        if k / Fraction(fps) <= exact[-1]
    }
    times = np.array(exact, dtype=float)
    assert select(Sampling(fps=fps), times, 1e-4).tolist() == sorted(wanted)
    rounded = times.round(3)  # Matroska
    if 24 % fps == 0 or fps > 24:
        assert select(Sampling(fps=fps), rounded, 1e-3).tolist() == sorted(wanted)
