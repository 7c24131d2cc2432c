"""The progress line of all jobs."""

import sys
import time

from pipelines.labelling.progress import Progress

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


class LabelProgress:
    """Progress line of a labelling run; rates count from the first frames on."""

    def __init__(self) -> None:
        self.line = ProgressLine()
        self.began: tuple[float, Progress] | None = None

    def __call__(self, done: Progress, total: int) -> None:
        """Shows how far the run has come."""
        now = time.monotonic()
        finished = min(done.ok + done.failed, total)  # videos of a lost actor count twice
        if self.began is None and (done.frames or finished):
            self.began = now, done
        failed = f", {done.failed} failed" if done.failed else ""
        line = f"{finished}/{total} videos{failed}, {done.frames} frames{self._rate(done, total, now)}"
        self.line.show(line, finished=finished == total)

    def end(self) -> None:
        """Ends the line, so that other output starts below it."""
        self.line.end()

    def _rate(self, done: Progress, total: int, now: float) -> str:
        if self.began is None:
            return ", starting"
        start, first = self.began
        elapsed, videos = max(now - start, 1e-9), done.ok + done.failed - first.ok - first.failed
        left = max(total - done.ok - done.failed, 0)
        remaining = f", {elapsed * left / videos:.0f} s left" if videos and left else ""
        return f" at {(done.frames - first.frames) / elapsed:.1f}/s, {done.tracks} tracks{remaining}"


class CellProgress:
    """A progress line per cell."""

    def __init__(self) -> None:
        self.cell, self.line = "", LabelProgress()

    def __call__(self, cell: str, done: Progress, total: int) -> None:
        """Shows how far the cell has come."""
        if cell != self.cell:
            self.line.end()
            self.cell, self.line = cell, LabelProgress()
            print(cell, file=sys.stderr)
        self.line(done, total)

    def end(self) -> None:
        """Ends the line of the last cell."""
        self.line.end()
