"""Labels videos: finds, segments, tracks and names their objects, and writes Parquet tables.

python -m jobs.label --input videos/ --output labels/ --vocabulary names.txt

Run again after any interruption, it goes on where it was. The exit code is 0 if every video was labelled, 1 if some
failed (their reasons are in the `videos` table), 2 for bad input.
"""

import sys
import time

from jsonargparse import ArgumentParser

from pipelines.label import LabelConfig, LabelSummary, label_videos
from pipelines.track_sink import Progress

LOG_EVERY = 10.0
"""Seconds between progress lines where the output is no terminal."""


class ProgressLine:
    """One line that is written over in a terminal, log lines elsewhere."""

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()
        self.shown = ""

    def __call__(self, done: Progress, total: int) -> None:
        """Shows how far the run has come."""
        now = time.monotonic()
        finished = done.ok + done.failed
        if not sys.stderr.isatty() and now - self.last < LOG_EVERY and finished < total:
            return
        self.last, elapsed = now, now - self.start
        left = f"{elapsed * (total - finished) / finished:.0f} s left" if finished else "…"
        failed = f", {done.failed} failed" if done.failed else ""
        count = f"{finished}/{total} videos{failed}, {done.frames} frames"
        if count == self.shown:
            return
        self.shown = count
        line = f"{count} at {done.frames / elapsed:.1f}/s, {done.tracks} tracks, {left}"
        terminal = sys.stderr.isatty()
        print(f"\r\x1b[K{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    parser = ArgumentParser(prog="python -m jobs.label", description=__doc__)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(LabelConfig)
    try:
        config = parser.instantiate(parser.parse_args(arguments))
        summary = label_videos(LabelConfig(**{k: v for k, v in vars(config).items() if k != "config"}), ProgressLine())
    except (ValueError, RuntimeError) as error:
        print(f"label: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    print_summary(summary, config.output)
    return 1 if summary.failures or summary.missing else 0


def print_summary(summary: LabelSummary, output: str) -> None:
    """Prints what was done, failures by name."""
    if sys.stderr.isatty():
        print(file=sys.stderr)
    rate = summary.frames / summary.seconds
    print(
        f"{summary.ok} of {summary.videos} videos labelled"
        f"{f', {summary.skipped} were already' if summary.skipped else ''}: {summary.frames} frames, "
        f"{summary.tracks} tracks in {summary.seconds:.0f} s ({rate:.1f} frames/s) → {output}"
    )
    for video_id, reason in summary.failures.items():
        print(f"  failed: {video_id}: {reason}")
    for video_id in summary.missing:
        print(f"  lost on the way, run again: {video_id}")


if __name__ == "__main__":
    sys.exit(main())
