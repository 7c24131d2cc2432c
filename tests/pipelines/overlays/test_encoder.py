from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.overlays.encoder import MASTER, PREVIEW, encoder


@pytest.mark.parametrize("options", [MASTER, PREVIEW])
def test_frames_keep_their_times_and_pixels(tmp_path: Path, options: Mapping[str, str]) -> None:
    """Odd sides, uneven times, and more frames than lie between two key frames of a preview."""
    times = [round(0.04 * number + 0.3 * (number > 50), 3) for number in range(100)]
    with encoder(tmp_path / "film.mp4", Fraction(25), (45, 63), options) as encode:
        for number, time in enumerate(times):
            encode(np.full((45, 63, 3), 40 + 2 * number, np.uint8), time)
    with av.open(str(tmp_path / "film.mp4")) as film:
        frames = list(film.decode(video=0))
    assert [round(float(frame.time), 3) for frame in frames] == times
    assert {(frame.height, frame.width) for frame in frames} == {(46, 64)}
    assert all(abs(frame.to_ndarray(format="rgb24").mean() - 40 - 2 * at) < 4 for at, frame in enumerate(frames))
    keys = [at for at, frame in enumerate(frames) if frame.key_frame]
    assert (max(np.diff([*keys, 100])) <= 48) == (options is PREVIEW)
