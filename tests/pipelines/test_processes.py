import pytest

from pipelines.processes import Processes


@pytest.mark.parametrize(
    ("value", "expected"), [(4, (4, 4)), ("4", (4, 4)), ("1-8", (1, 8)), (" 2 - 4 ", (2, 4)), ("3-3", (3, 3))]
)
def test_a_number_or_a_range(value: int | str, expected: tuple[int, int]) -> None:
    assert Processes.parse("workers", value) == expected


@pytest.mark.parametrize("value", [0, -1, "0-3", "8-1", "1-", "-8", "1-2-3", "many", "1.5", "", "1" * 20])
def test_anything_else_is_named(value: int | str) -> None:
    with pytest.raises(
        ValueError, match=f"^workers: expected a number from 1 on, or a range such as 1-8, got {value}$"
    ):
        Processes.parse("workers", value)
