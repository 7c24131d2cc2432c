import io
from collections.abc import Callable

import numpy as np
import pytest

from pipelines.storage.ranged_file import REQUEST_BYTES, Range, RangedFile, plan_requests

CONTENT = np.random.default_rng(0).bytes(5 * 2**20)

Open = Callable[[int], tuple[RangedFile, list[Range]]]


@pytest.fixture
def opened() -> Open:
    """Opens the content with a tail of some bytes; returns the file, and the ranges that it fetches."""

    def opened(tail: int) -> tuple[RangedFile, list[Range]]:
        fetched: list[Range] = []

        def fetch(start: int, stop: int) -> bytes:
            fetched.append((start, stop))
            return CONTENT[start:stop]

        return RangedFile("content", fetch, len(CONTENT), CONTENT[len(CONTENT) - tail :]), fetched

    return opened


def test_any_reads_give_the_bytes_of_the_file(opened: Open) -> None:
    rng = np.random.default_rng(1)
    file, _ = opened(1000)
    file.plan([(5000, 900_000), (2_000_000, 2_100_000)])
    for _ in range(300):
        start, length = int(rng.integers(len(CONTENT) + 100)), int(rng.integers(200_000))
        assert file.seek(start) == start
        assert file.read(length) == CONTENT[start : start + length]
    assert file.seek(-10, io.SEEK_END) == file.tell() == len(CONTENT) - 10
    assert file.seek(5, io.SEEK_CUR) == len(CONTENT) - 5
    assert (file.read(), file.read(), file.read(5)) == (CONTENT[-5:], b"", b"")


def test_a_small_file_comes_with_its_tail(opened: Open) -> None:
    file, fetched = opened(len(CONTENT))
    assert file.read() == CONTENT
    assert fetched == []


def test_a_file_is_read_whole_in_one_request(opened: Open) -> None:
    file, fetched = opened(1000)
    assert file.read() == CONTENT
    assert fetched == [(0, len(CONTENT) - 1000)]


def test_planned_ranges_share_requests(opened: Open) -> None:
    file, fetched = opened(1000)
    ranges = [(4, 10_000), (10_000, 30_000), (40_000, 50_000), (3_000_000, 3_000_100)]
    file.plan(ranges)
    for start, stop in ranges:
        file.seek(start)
        assert file.read(stop - start) == CONTENT[start:stop]
    assert fetched == [(4, 50_000), (3_000_000, 3_000_100)]


def test_small_reads_that_nobody_planned_share_requests(opened: Open) -> None:
    file, fetched = opened(1000)
    for _ in range(100):
        file.read(8192)
    assert fetched == [(0, 2**20)]


def test_requests_have_a_largest_size() -> None:
    whole = [(start, start + 2**20) for start in range(0, 20 * 2**20, 2**20)]
    assert plan_requests(whole) == [(0, REQUEST_BYTES), (REQUEST_BYTES, 2 * REQUEST_BYTES), (2**24, 20 * 2**20)]
    assert plan_requests([(5, 5), (7, 9)]) == [(7, 9)]
