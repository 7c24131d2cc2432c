from typing import Any

import pytest

from pipelines.training.share import Share


def test_workers_split_every_step() -> None:
    workers = [Share(first_step=0, last_step=9, batch_size=6, rank=rank, world_size=3) for rank in range(3)]
    assert [list(worker.numbers(2)) for worker in workers] == [[12, 13], [14, 15], [16, 17]]
    assert list(Share(first_step=0, last_step=9, batch_size=6).numbers(2)) == [12, 13, 14, 15, 16, 17]


def test_a_batch_that_cannot_be_split_evenly_is_split_whole() -> None:
    workers = [Share(first_step=0, last_step=9, batch_size=8, rank=rank, world_size=3) for rank in range(3)]
    assert [list(worker.numbers(1)) for worker in workers] == [[8, 9], [10, 11, 12], [13, 14, 15]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first_step": 5}, "first_step, last_step: expected 0 <= first <= last, got 5 and 4"),
        ({"first_step": -1}, "first_step, last_step: .* got -1 and 4"),
        ({"rank": 2, "world_size": 2}, r"rank: expected 0 to 1 \(world_size - 1\), got 2"),
        ({"rank": -1}, "rank: expected 0 to 0"),
        ({"batch_size": 2, "world_size": 3}, r"batch_size: expected at least world_size \(3\), got 2"),
        ({"batch_size": 0}, "batch_size: .* got 0"),
    ],
)
def test_fields_out_of_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Share(**{"first_step": 0, "last_step": 4, "batch_size": 2, **change})
