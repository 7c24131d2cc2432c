"""Renames the tracks of labelled videos with another vocabulary, without reading any video.

python -m jobs.relabel --labels labels/ --output relabelled/ --vocabulary new_names.txt

The output has all three tables, as labelling with that vocabulary would have written them. Run it again to add videos
that were labelled since. The exit code is 0, 1 if some videos could not be renamed or the run broke off, 2 for bad
input, 75 if it was interrupted.
"""

import sys

from jobs.command import check_present, print_left_out, run_job, start
from jobs.options import read_config
from jobs.progress import ProgressCount
from jobs.recipes import RelabelOptions, with_checkpoint


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job(
        "relabel", lambda: _relabel(arguments), interrupted="renamed videos are kept; run it again to resume"
    )


def _relabel(arguments: list[str] | None) -> int:
    config = read_config("relabel", __doc__, RelabelOptions, arguments)
    for name in ("labels", "vocabulary", "checkpoint"):
        check_present(name, getattr(config, name))
    config = with_checkpoint(config)

    from pipelines.archive.relabel import relabel

    summary = relabel(config, ProgressCount("videos"))
    done = f"{summary.tracks} tracks of {summary.videos} videos renamed in {summary.seconds:.0f} s"
    if summary.skipped:
        done += f", {summary.skipped} videos already done"
    print(f"{done} → {config.output}")
    print_left_out("relabel", summary.left_out)
    for part, reason in summary.failures.items():
        print(f"relabel: failed: {part}: {reason}", file=sys.stderr)
    return 1 if summary.failures or summary.left_out else 0


if __name__ == "__main__":
    start(main)
