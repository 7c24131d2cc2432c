"""Follows objects that you show in one frame through a video: a box or points in, masks and tracks out.

python -m jobs.track --video v.mp4 --prompt "0.5s: box 10 20 200 180 = my cup" --output followed/

The proposal that fits a prompt best is followed forwards and backwards, to the cuts of the video. The output is an
archive like that of jobs.label, for jobs.render, export, review, relabel and search. The exit code is 0, 1 if it
failed, 2 for bad input, such as a prompt that no proposal fits, 75 if it was interrupted.
"""

import sys
from collections.abc import Mapping
from typing import Any

from jobs.command import check_present, run_job, start
from jobs.options import read_config
from jobs.progress import ProgressCount
from jobs.recipes import TrackOptions, recipe_options, with_checkpoint


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job("track", lambda: _track(arguments), interrupted="nothing is written")


def _track(arguments: list[str] | None) -> int:
    config = read_config("track", __doc__, TrackOptions, arguments, _suited)
    for name in ("video", "prompts", "checkpoint"):
        check_present(name, getattr(config, name))
    config = with_checkpoint(config)

    from pipelines.following.run import track_video

    progress = ProgressCount("frames")
    summary = track_video(config, progress)
    if not summary.frames:
        print(f"{summary.video_id} was done already → {config.output}")
        return 0
    for track, prompt in summary.tracks:
        seen = f"{track.frames} of {summary.frames} frames, {track.first_frame} to {track.last_frame}"
        print(f"track {track.track_id}: {track.category}: {seen}, from {prompt.time}")
    if summary.error:
        print(f"track: warning: {summary.error}", file=sys.stderr)
    rate = summary.frames / summary.seconds
    print(f"{summary.frames} frames in {summary.seconds:.0f} s ({rate:.1f} frames/s) → {config.output}")
    return 0


def _suited(given: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """As for labelling; proposals below the tracker's threshold never count here."""
    file, options = recipe_options(given)
    return file, {name: value for name, value in options.items() if name != "objectness_floor"}


if __name__ == "__main__":
    start(main)
