"""Finds near-duplicate videos and tracks in the output of a labelling run.

python -m jobs.duplicates --labels labels/

Compares the embeddings of all tracks; no video is read. A pair of tracks in different videos whose embeddings are
similar enough is a row of the table, and so is a pair of videos most of whose tracks have such a counterpart. The exit
code is 0, 1 if it failed, 2 for bad input, 75 if it was interrupted.
"""

import time

from jobs.command import check_present, run_job, start
from jobs.options import read_config
from pipelines.archive.config import DuplicatesConfig


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job("duplicates", lambda: _find(arguments), interrupted="nothing is written")


def _find(arguments: list[str] | None) -> int:
    config = read_config("duplicates", __doc__, DuplicatesConfig, arguments)
    check_present("labels", config.labels)

    from pipelines.archive.duplicates import find_duplicates

    begin = time.monotonic()
    found = find_duplicates(config)
    print(
        f"{found.video_pairs} pairs of {found.videos} videos, {found.track_pairs} pairs of {found.tracks} tracks "
        f"in {time.monotonic() - begin:.1f} s → {found.output}"
    )
    return 0


if __name__ == "__main__":
    start(main)
