"""Labels videos: finds, segments, tracks and names their objects, and writes Delta Lake tables.

python -m jobs.label --input videos/ --output labels/ --vocabulary names.txt --model mask2former-swin-tiny

After an interruption, run it again: it resumes where it stopped. The exit code is 0 if every video is labelled, 1 if
a larger share than --max_failed failed (the `videos` table has the reasons) or the run broke off, 2 for bad input, 75
if it was interrupted.
"""

import sys
from itertools import islice
from typing import TYPE_CHECKING

from jobs.command import check_present, run_job, start
from jobs.options import read_config
from jobs.progress import LabelProgress
from jobs.recipes import LabelOptions, recipe_options, with_checkpoint

if TYPE_CHECKING:
    from pipelines.labelling.run import LabelSummary

_LISTED = 100  # failures printed at most


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job("label", lambda: _label(arguments), interrupted="committed videos are kept; run it again to resume")


def _label(arguments: list[str] | None) -> int:
    config = read_config("label", __doc__, LabelOptions, arguments, recipe_options)
    for name in ("input", "vocabulary", "checkpoint"):
        check_present(name, getattr(config, name))
    config = with_checkpoint(config)

    from pipelines.labelling.run import label_videos

    if config.checkpoint is None:
        print(
            "No model is given: the built-in one knows only the words of Shapes. For real videos: --model "
            "mask2former-swin-tiny",
            file=sys.stderr,
        )
    progress = LabelProgress()
    summary = label_videos(config, progress)
    progress.end()
    print_summary(summary, config.output)
    return 1 if len(summary.failures) > config.max_failed * summary.videos else 0


def print_summary(summary: "LabelSummary", output: str) -> None:
    """Prints the result of a run and its first failures."""
    done = f"{summary.ok} of {summary.videos} videos labelled"
    if summary.skipped:
        done += f", {summary.skipped} already done"
    if summary.frames:
        rate = summary.frames / summary.seconds
        done += f": {summary.frames} frames, {summary.tracks} tracks in {summary.seconds:.0f} s ({rate:.1f} frames/s)"
    print(f"{done} → {output}")
    for video_id, reason in islice(summary.failures.items(), _LISTED):
        print(f"  failed: {video_id}: {reason}")
    if (more := len(summary.failures) - _LISTED) > 0:
        print(f"  and {more} more: the rows of {output}/videos whose status is failed")


if __name__ == "__main__":
    start(main)
