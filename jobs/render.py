"""Draws the labels of a video into it: masks, contours, names and ids, in a colour per track.

python -m jobs.render --video dog.mp4 --labels labels --output dog_labelled.mp4 --sheet dog.png
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.render import contact_sheet, render_video
from pipelines.results import Results
from pipelines.storage import Storage

_TILES = 12  # of a contact sheet
_SUGGESTED = 5  # videos that an error lists

_EPILOG = """The video is found in the labels by its absolute path; name it with --video-id if it was moved since.
Frames between those that were labelled show the masks of the one before.
"""


class _Parser(argparse.ArgumentParser):
    """Reports bad arguments in one line, without repeating the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"render: error: {' '.join(message.split())}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m jobs.render",
        description="Write a labelled video as an MP4 (H.264, no sound) with its objects drawn in.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--video", type=Path, required=True, metavar="FILE", help="the video")
    parser.add_argument("--labels", type=Path, required=True, metavar="DIR", help="the output folder of the labelling")
    parser.add_argument("--output", type=Path, required=True, metavar="MP4", help="file to write, replaced if there")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help=f"also write a contact sheet of {_TILES} frames")
    parser.add_argument("--video-id", metavar="ID", help="the video's id in the labels (default: found by its path)")
    parser.add_argument(
        "--min-score", type=float, default=0.0, metavar="S", help="leave out tracks scored lower, 0 to 1 (default: 0)"
    )
    parser.add_argument(
        "--most", type=int, metavar="N", help="objects drawn per frame at most, those scored best (default: all)"
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Runs the job; exits with code 2 and one line on stderr if the arguments are bad."""
    parser = _parser()
    options = parser.parse_args(arguments)
    start = time.monotonic()
    try:
        _check(options)
        results = Results(Storage(str(options.labels)))
        video_id = _find(results, options.video, options.video_id, options.labels)
        tracks, masks = (results.read(table, video_id=video_id) for table in ("tracks", "masks"))
        rendered = render_video(
            options.video,
            tracks,
            masks,
            options.output,
            min_score=options.min_score,
            most=options.most,
            tiles=_TILES if options.sheet else 0,
            progress=_progress,
        )
        if options.sheet:
            contact_sheet(rendered.tiles, options.sheet)
    except (ValueError, pa.ArrowException) as error:
        parser.error(str(error))
    if rendered.error:
        print(f"render: warning: {rendered.error}", file=sys.stderr)
    seconds = time.monotonic() - start
    print(
        f"{options.output}: {rendered.frames} frames of {rendered.width} × {rendered.height} pixels, "
        f"{len(tracks.filter(pc.field('score') >= options.min_score))} tracks in {seconds:.1f} s"
    )


def _check(options: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments before anything heavy starts."""
    if not options.video.exists():
        raise ValueError(f"video: {options.video} is not there")
    if not options.labels.is_dir():
        raise ValueError(f"labels: {options.labels} is not a folder; give the output folder of the labelling")
    if not 0 <= options.min_score <= 1:
        raise ValueError(f"min-score: must be from 0 to 1, got {options.min_score}")
    if options.most is not None and options.most < 1:
        raise ValueError(f"most: must be at least 1, got {options.most}")
    for name, path, suffix in (("output", options.output, ".mp4"), ("sheet", options.sheet, ".png")):
        if path is None:
            continue
        if path.suffix.lower() != suffix:
            raise ValueError(f"{name}: {path} must end with {suffix}")
        if path.is_dir():
            raise ValueError(f"{name}: {path} is a folder; give a file in it")
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise ValueError(f"{name}: cannot write {path} ({folder} is no folder to write to); choose another path")


def _find(results: Results, video: Path, video_id: str | None, labels: Path) -> str:
    """Id of the video in the labels, by its path unless the id is given."""
    rows: list[dict[str, Any]] = results.read("videos").select(["video_id", "uri", "status", "error"]).to_pylist()
    if not rows:
        raise ValueError(f"labels: {labels} has no labelled videos; give the output folder of the labelling")
    paths = {path for spelling in (os.path.abspath(video), video.resolve()) for path in _uris(Path(spelling))}
    found = [row for row in rows if (row["uri"] in paths if video_id is None else row["video_id"] == video_id)]
    if not found:
        missing = f"video {video.absolute()}" if video_id is None else f"video-id {video_id}"
        some = ", ".join(f"{row['uri']} ({row['video_id']})" for row in rows[:_SUGGESTED])
        more = f" and {len(rows) - _SUGGESTED} more" if len(rows) > _SUGGESTED else ""
        raise ValueError(f"labels: {labels} has no {missing}; it has {some}{more}")
    if len(found) > 1:
        ids = ", ".join(row["video_id"] for row in found[:_SUGGESTED])
        raise ValueError(f"labels: {labels} has {video} {len(found)} times; choose one with --video-id: {ids}")
    if found[0]["status"] != "ok":
        raise ValueError(f"video: {video} could not be labelled ({found[0]['error']})")
    return str(found[0]["video_id"])


def _uris(path: Path) -> tuple[str, str]:
    return str(path), path.as_uri()


def _progress(done: int, expected: int) -> None:
    if sys.stderr.isatty() and (done % 20 == 0 or done == expected):
        print(f"\r{done}/{expected} frames ", end="\n" if done == expected else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
