"""Exports labels as annotations for other tools.

python -m jobs.export --labels labels/ --output review/ --format cvat --min_score 0.3

docs/output.md lists what each format holds. What it cannot hold of some tracks is said, with their names. Decisions of
reviewers (`jobs.review`) are applied. The exit code is 0, 1 if it failed or the frames of a video could not be read, 2
for bad input, 75 if it was interrupted.
"""

import sys

from jobs.command import check_present, run_job, start
from jobs.options import read_config
from jobs.progress import ProgressCount
from pipelines.archive.config import ExportConfig


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job("export", lambda: _export(arguments), interrupted="run it again to start over")


def _export(arguments: list[str] | None) -> int:
    config = read_config("export", __doc__, ExportConfig, arguments)
    check_present("labels", config.labels)

    from pipelines.archive.export import export_annotations

    summary = export_annotations(config, ProgressCount("videos"))
    print("; ".join([f"{summary.tracks} tracks of {summary.videos} videos → {config.output}", *summary.losses]))
    for video, reason in summary.failures.items():
        print(f"export: failed: {video}: {reason}", file=sys.stderr)
    return 1 if summary.failures else 0


if __name__ == "__main__":
    start(main)
