"""Merges small files of a labelling output into large ones; the tables read the same before, during and after.

python -m jobs.compact --labels labels/

The exit code is 0, 1 if it failed, 2 for bad input, 75 if it was interrupted. Run it again then: nothing is lost.
"""

from jobs.command import check_kept, check_present, run_job, start
from jobs.options import read_config
from pipelines.archive.config import CompactConfig


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job("compact", lambda: _compact(arguments), interrupted="nothing is lost; run it again to resume")


def _compact(arguments: list[str] | None) -> int:
    config = read_config("compact", __doc__, CompactConfig, arguments)
    check_kept("labels", config.labels)
    check_present("labels", config.labels)

    from pipelines.archive.compaction import compact

    summary = compact(config)
    size = summary.bytes / 1e6
    print(f"{summary.parts_before} parts → {summary.parts}, {size:.1f} MB → {config.labels}")
    return 0


if __name__ == "__main__":
    start(main)
