"""A remote file that is read in ranges: only the bytes that somebody asks for travel, in few requests."""

import io
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Any

TAIL_BYTES = 2**18
"""Bytes at the end of a file that come with its first request: a small file whole, the footer of most Parquet files."""

REQUEST_BYTES = 2**23
"""Largest planned request; a reader holds two of them in memory."""

_HOLE_BYTES = 2**17  # smaller holes are fetched too: another request would cost more
_UNPLANNED_BYTES = 2**20  # smallest request of a read that nobody planned, which may be the first of many

Range = tuple[int, int]
"""Start and stop, in bytes."""


class RangedFile(io.RawIOBase):
    """A read-only file over a function that fetches a range of bytes.

    Args:
        name: full name of the file.
        fetch: returns the bytes from start to stop.
        size: of the whole file.
        tail: its last bytes.
    """

    mode = "rb"

    def __init__(self, name: str, fetch: Callable[[int, int], bytes], size: int, tail: bytes) -> None:
        super().__init__()
        self.name = name
        self._fetch = fetch
        self._size = size
        self._tail = (size - len(tail), tail)
        self._recent: list[tuple[int, bytes]] = []  # the last two fetched ranges
        self._planned: list[Range] = []
        self._position = 0

    def plan(self, ranges: Iterable[Range]) -> None:
        """Announces the ranges that will be read, in rising order; they are then fetched in large requests."""
        self._planned = plan_requests([(start, min(stop, self._tail[0])) for start, stop in ranges])

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a position and returns it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer as far as the file goes, and returns the number of bytes."""
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size - self._position))
        filled = 0
        while filled < wanted:
            start, data = self._range_at(self._position, wanted - filled)
            piece = memoryview(data)[self._position - start :][: wanted - filled]
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._position += len(piece)
        return filled

    def readall(self) -> bytes:
        """Reads to the end in one request."""
        return self.read(max(0, self._size - self._position)) or b""

    def _range_at(self, position: int, length: int) -> tuple[int, bytes]:
        """Returns the start and the bytes of a range that holds a position."""
        for start, data in (self._tail, *self._recent):
            if start <= position < start + len(data):
                return start, data
        start, stop = self._request_at(position, length)
        self._recent = [*self._recent[-1:], (start, self._fetch(start, stop))]
        return self._recent[-1]

    def _request_at(self, position: int, length: int) -> Range:
        index = bisect_right(self._planned, position, key=lambda planned: planned[0]) - 1
        if index >= 0 and position < self._planned[index][1]:
            return self._planned[index]
        return position, min(position + max(length, _UNPLANNED_BYTES), self._tail[0])


def plan_requests(ranges: Iterable[Range]) -> list[Range]:
    """Joins ranges across small holes, and cuts the results where a request would be too large.

    Args:
        ranges: in rising order.
    """
    joined: list[Range] = []
    for start, stop in ranges:
        if joined and start <= joined[-1][1] + _HOLE_BYTES:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        elif start < stop:
            joined.append((start, stop))
    return [
        (begin, min(begin + REQUEST_BYTES, stop))
        for start, stop in joined
        for begin in range(start, stop, REQUEST_BYTES)
    ]
