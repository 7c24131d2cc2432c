from typing import Any

import pytest

from pipelines.review.config import ReviewConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"port": 65536}, "^port: expected 0 to 65535, got 65536"),
        ({"port": -1}, "^port: expected"),
        ({"reviewer": " "}, "^reviewer: is empty; give a name"),
    ],
)
def test_bad_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReviewConfig(labels="labels", **values)
