"""Links the tracks of the same object, across gaps and cuts, in the output of a labelling run.

python -m jobs.identities --labels labels/

Compares embeddings and mean colours of the tracks of each video, or of all with `--across_videos true`; no video is
read, and tracks stay as they are. Each track is a row of the table, with its identity. The exit code is 0, 1 if it
failed, 2 for bad input, 75 if it was interrupted.
"""

import time

from jobs.command import check_present, run_job, start
from jobs.options import read_config
from pipelines.archive.config import IdentitiesConfig


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job("identities", lambda: _link(arguments), interrupted="nothing is written")


def _link(arguments: list[str] | None) -> int:
    config = read_config("identities", __doc__, IdentitiesConfig, arguments)
    check_present("labels", config.labels)

    from pipelines.archive.identities import find_identities

    begin = time.monotonic()
    found = find_identities(config)
    print(
        f"{found.identities} identities of {found.tracks} tracks, {found.linked} of them with several, "
        f"in {time.monotonic() - begin:.1f} s → {found.output}"
    )
    return 0


if __name__ == "__main__":
    start(main)
