"""The progress line of all jobs."""

import sys
import time

LOG_EVERY, REWRITE_EVERY = 10.0, 0.1
"""Seconds between progress lines: in a log, and in a terminal."""


class ProgressLine:
    """A line that is rewritten in place in a terminal, or log lines elsewhere."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._open = self._finished = False

    def show(self, text: str, *, finished: bool) -> None:
        """Shows a line if the last one is old enough; a finished line always, and nothing after it."""
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if self._finished or (not finished and now - self._last < (REWRITE_EVERY if terminal else LOG_EVERY)):
            return
        self._last, self._open, self._finished = now, terminal, finished
        print(f"\r\x1b[K{text}" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)
        if finished:
            self.end()

    def end(self) -> None:
        """Ends the line, so that other output starts below it."""
        if self._open:
            self._open = False
            print(file=sys.stderr)


class ProgressCount:
    """A count as a progress line.

    Args:
        things: plural noun of what is counted.
    """

    def __init__(self, things: str) -> None:
        self._things = things
        self._line = ProgressLine()

    def __call__(self, done: int, total: int) -> None:
        """Shows the count."""
        self._line.show(f"{done}/{total} {self._things}", finished=done >= total)
