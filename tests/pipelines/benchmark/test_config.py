import pytest

from pipelines.benchmark.config import BenchmarkConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"seconds": 0.0}, "seconds: expected more than 0, got 0"),
        ({"core_price": -1.0}, "core_price: expected 0 or more, got -1"),
        ({"objectness_floor": 1.5}, "objectness_floor: expected a probability, got 1.5"),
        ({"fps": 5.0, "stride": 2}, "stride"),
    ],
)
def test_bad_values_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BenchmarkConfig(**options)
