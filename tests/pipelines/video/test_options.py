from typing import Any

import pytest

from pipelines.video.options import Sampling


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0.0}, "fps: is 0.0"),
        ({"fps": -1.0}, "fps: is -1.0"),
        ({"fps": float("nan")}, "fps: is nan"),
        ({"fps": float("inf")}, "fps: is inf"),
        ({"stride": 0}, "stride: is 0"),
        ({"fps": 5.0, "stride": 2}, "fps and stride: are 5.0 and 2"),
    ],
)
def test_bad_sampling(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**options)
