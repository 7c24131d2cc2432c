"""Names labelled tracks anew, by another vocabulary; no video is read.

python -m jobs.relabel --labels labels/ --output relabelled/ --vocabulary new_names.txt

The output is what labelling with that vocabulary would have written, all three tables; run again, it does what was
labelled since. The exit code is 0, 1 if parts failed or it broke off, 2 for bad input, 75 if it was interrupted.
"""

import sys

from jobs.command import read_config, run_job, start
from pipelines.relabel import RelabelConfig, relabel


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job("relabel", lambda: _relabel(arguments), interrupted="what is done stays, run it again to go on")


def _relabel(arguments: list[str] | None) -> int:
    config = read_config("relabel", __doc__, RelabelConfig, arguments)
    summary = relabel(config, _progress)
    done = f"{summary.tracks} tracks named, of {summary.videos} videos"
    if summary.skipped:
        done += f", {summary.skipped} of which were already"
    print(f"{done} in {summary.seconds:.0f} s → {config.output}")
    for part, reason in summary.failures.items():
        print(f"  failed: {part}: {reason}")
    return 1 if summary.failures else 0


def _progress(done: int, parts: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done}/{parts} parts ", end="\n" if done == parts else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    start(main)
