"""Draws the labels of a video into it: masks, contours, names and ids, in a colour per track.

python -m jobs.render --video dog.mp4 --labels labels --output dog_labelled.mp4 --sheet dog.png

The result is an MP4 (H.264, no sound). Frames between those that were labelled show the masks of the one before. A
video that was moved since is found by its --video_id. The exit code is 0, 1 if it broke off, 2 for bad input.
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from jobs.command import read_config, run_job, start
from pipelines.render import contact_sheet, render_video
from pipelines.results import Results
from pipelines.storage import Storage

_TILES = 12  # of a contact sheet
_SUGGESTED = 5  # videos that an error lists


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """An overlay.

    Attributes:
        video: the file.
        labels: the output folder of the labelling.
        output: MP4 to write, replaced if it is there.
        sheet: also write a contact sheet, a PNG of 12 frames.
        video_id: the video's id in the labels; it is found by its absolute path if none is given.
        min_score: tracks that are scored lower are left out, 0 to 1.
        most: objects drawn per frame at most, those scored best; all if not given.
    """

    video: str
    labels: str
    output: str
    sheet: str | None = None
    video_id: str | None = None
    min_score: float = 0.0
    most: int | None = None


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job("render", lambda: _render(arguments), interrupted="nothing is written")


def _render(arguments: list[str] | None) -> int:
    config = read_config("render", __doc__, RenderConfig, arguments)
    begin = time.monotonic()
    _check(config)
    video, results = Path(config.video), Results(Storage(config.labels))
    video_id = _find(results, video, config.video_id, config.labels)
    tracks, masks = (results.read(table, video_id=video_id) for table in ("tracks", "masks"))
    rendered = render_video(
        video,
        tracks,
        masks,
        Path(config.output),
        min_score=config.min_score,
        most=config.most,
        tiles=_TILES if config.sheet else 0,
        progress=_progress,
    )
    if config.sheet:
        contact_sheet(rendered.tiles, Path(config.sheet))
    if rendered.error:
        print(f"render: warning: {rendered.error}", file=sys.stderr)
    seconds = time.monotonic() - begin
    print(
        f"{config.output}: {rendered.frames} frames of {rendered.width} × {rendered.height} pixels, "
        f"{len(tracks.filter(pc.field('score') >= config.min_score))} tracks in {seconds:.1f} s"
    )
    return 0


def _check(config: RenderConfig) -> None:
    """Finds what is wrong with the options before anything heavy starts."""
    if not Path(config.video).exists():
        raise ValueError(f"video: {config.video} is not there")
    if not Storage(config.labels).is_there():
        raise ValueError(f"labels: {config.labels} is not there; give the output folder of the labelling")
    if not 0 <= config.min_score <= 1:
        raise ValueError(f"min_score: expected 0 to 1, got {config.min_score}")
    if config.most is not None and config.most < 1:
        raise ValueError(f"most: expected at least 1, got {config.most}")
    for name, file, suffix in (("output", config.output, ".mp4"), ("sheet", config.sheet, ".png")):
        if file is None:
            continue
        path = Path(file)
        if path.suffix.lower() != suffix:
            raise ValueError(f"{name}: {path} must end with {suffix}")
        if path.is_dir():
            raise ValueError(f"{name}: {path} is a folder; give a file in it")
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise ValueError(f"{name}: cannot write {path} ({folder} is no folder to write to); choose another path")


def _find(results: Results, video: Path, video_id: str | None, labels: str) -> str:
    """Id of the video in the labels, by its path unless the id is given."""
    rows: list[dict[str, Any]] = results.read("videos").sort_by("video_id").to_pylist()
    if not rows:
        raise ValueError(f"labels: {labels} has no labelled videos; give the output folder of the labelling")
    paths = {path for spelling in (os.path.abspath(video), video.resolve()) for path in _uris(Path(spelling))}
    found = [row for row in rows if (row["uri"] in paths if video_id is None else row["video_id"] == video_id)]
    if not found:
        missing = f"video {video.absolute()}" if video_id is None else f"video_id {video_id}"
        some = ", ".join(f"{row['uri']} ({row['video_id']})" for row in rows[:_SUGGESTED])
        more = f" and {len(rows) - _SUGGESTED} more" if len(rows) > _SUGGESTED else ""
        raise ValueError(f"labels: {labels} has no {missing}; it has {some}{more}")
    if len(found) > 1:
        ids = ", ".join(row["video_id"] for row in found[:_SUGGESTED])
        raise ValueError(f"labels: {labels} has {video} {len(found)} times; choose one with --video_id: {ids}")
    if found[0]["status"] != "ok":
        raise ValueError(f"video: {video} could not be labelled ({found[0]['error']})")
    return str(found[0]["video_id"])


def _uris(path: Path) -> tuple[str, str]:
    return str(path), path.as_uri()


def _progress(done: int, expected: int) -> None:
    if sys.stderr.isatty() and (done % 20 == 0 or done == expected):
        print(f"\r{done}/{expected} frames ", end="\n" if done == expected else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    start(main)
