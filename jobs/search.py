"""Finds tracks by free text or by a picture in the output of a labelling run.

python -m jobs.search --labels labels/ --text "red striped star" --sheet found.png
python -m jobs.search --labels labels/ --image "cup.jpg box 10 20 200 180" --sheet found.png

Each line is a track: how similar it is, when it is seen best, and what it was labelled as. The exit code
is 0, 1 if something could not be read or was left out, 2 for bad input, 75 if it was interrupted.
"""

import sys
import time

from jobs.command import check_present, print_left_out, run_job, start
from jobs.options import read_config
from jobs.recipes import SearchOptions, with_checkpoint


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job("search", lambda: _search(arguments), interrupted="nothing is written")


def _search(arguments: list[str] | None) -> int:
    config = read_config("search", __doc__, SearchOptions, arguments)
    for name in ("labels", "checkpoint"):
        check_present(name, getattr(config, name))
    config = with_checkpoint(config)

    from pipelines.archive.search import search
    from pipelines.storage.files import check_output

    begin = time.monotonic()
    if config.sheet:
        check_output("sheet", config.sheet, ".png")
    found = search(config)
    print(f"{'':>4} {'similarity':>10}  {'at':>8}  track  labelled as")
    for rank, hit in enumerate(found.hits, start=1):
        tenths = round(10 * hit.time_s)
        at = f"{tenths // 600}:{tenths % 600 / 10:04.1f}"
        print(
            f"{rank:>4} {hit.similarity:>10.3f}  {at:>8}  {hit.track_id:>5}  {hit.category}  {hit.video_id}  {hit.uri}"
        )
    print(f"{found.tracks} tracks in {time.monotonic() - begin:.1f} s")
    failures = dict(found.failures)
    if config.sheet and found.hits:
        from pipelines.overlays.contact_sheet import contact_sheet
        from pipelines.overlays.pictures import pictures

        tiles, unread = pictures(found.hits)
        failures |= unread
        if tiles:
            contact_sheet(tiles, config.sheet)
    print_left_out("search", found.left_out)
    for what, reason in failures.items():
        print(f"search: failed: {what}: {reason}", file=sys.stderr)
    return 1 if failures or found.left_out else 0


if __name__ == "__main__":
    start(main)
