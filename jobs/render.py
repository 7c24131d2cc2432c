"""Draws the labels of a video over it: masks, contours, names and ids, with a colour per track.

python -m jobs.render --video dog.mp4 --labels labels --output dog_labelled.mp4 --sheet dog.png

The result is an MP4 (H.264, no sound). Frames that were not labelled show the masks of the last labelled one. If the
video was moved since it was labelled, give its --video_id. The exit code is 0, 1 if it failed, 2 for bad input, 75 if
it was interrupted.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.command import check_present, run_job, start
from jobs.options import read_config
from jobs.progress import ProgressCount
from pipelines.video.plan import VideoError

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.archive.tables import Results
    from pipelines.video.download_cache import DownloadCache

_TILES = 12  # pictures on a contact sheet
_SUGGESTED = 5  # videos that an error lists at most


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """An overlay.

    Attributes:
        video: video file or folder of frame images, local or in the cloud.
        labels: output of a labelling run, local or in the cloud.
        output: MP4 to write, local or in the cloud; an existing file is replaced.
        sheet: contact sheet to write as well, a PNG of 12 frames, local or in the cloud.
        video_id: id of the video in the labels; null finds the video by its absolute path.
        min_score: tracks with a lower score are left out, 0 to 1.
        most: maximum number of objects drawn in a frame, best scores first; null draws all.
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

    import pyarrow.compute as pc

    from pipelines.archive.tables import open_labels
    from pipelines.overlays.contact_sheet import contact_sheet
    from pipelines.overlays.render import render_video
    from pipelines.video.download_cache import DownloadCache

    results, cache = open_labels(config.labels), DownloadCache()
    video_id = _find(results, config.video, config.video_id, config.labels)
    with _opened(cache, config.video) as video:
        tracks, masks = (results.read(table, video_id=video_id) for table in ("tracks", "masks"))
        rendered = render_video(
            Path(video),
            tracks,
            masks,
            config.output,
            min_score=config.min_score,
            most=config.most,
            tiles=_TILES if config.sheet else 0,
            name=os.path.basename(config.video.rstrip("/")),
            progress=ProgressCount("frames"),
        )
    if config.sheet:
        contact_sheet(rendered.tiles, config.sheet)
    if rendered.error:
        print(f"render: warning: {rendered.error}", file=sys.stderr)
    seconds = time.monotonic() - begin
    print(
        f"{config.output}: {rendered.frames} frames of {rendered.width} × {rendered.height} pixels, "
        f"{len(tracks.filter(pc.field('score') >= config.min_score))} tracks in {seconds:.1f} s"
    )
    return 0


@contextmanager
def _opened(cache: "DownloadCache", video: str) -> Iterator[str]:
    """Yields a local path of the video."""
    try:
        with cache.open(video, cache.version(video)) as path:
            try:
                yield path
            except ValueError as error:
                raise ValueError(str(error).replace(path, video)) from error
    except VideoError as error:
        raise ValueError(f"video: cannot read {video} ({error})") from error


def _check(config: RenderConfig) -> None:
    """Checks the options before anything heavy is imported."""
    check_present("video", config.video)
    check_present("labels", config.labels)
    if not 0 <= config.min_score <= 1:
        raise ValueError(f"min_score: expected 0 to 1, got {config.min_score}")
    if config.most is not None and config.most < 1:
        raise ValueError(f"most: expected at least 1, got {config.most}")
    if "://" in config.output and config.output == config.video:
        raise ValueError(f"output: {config.output} is the video itself; choose another file")

    from pipelines.storage.files import check_output

    check_output("output", config.output, ".mp4")
    if config.sheet is not None:
        check_output("sheet", config.sheet, ".png")


def _find(results: "Results", video: str, video_id: str | None, labels: str) -> str:
    """Returns the id of the video in the labels; finds it by its path unless the id is given."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from pipelines.storage.objects import is_remote

    paths = [video] if is_remote(video) else [*_uris(Path(os.path.abspath(video))), *_uris(Path(video).resolve())]
    name, values = ("uri", paths) if video_id is None else ("video_id", [video_id])
    wanted = pa.array(values, pa.string())
    columns = ("video_id", "uri", "status", "error")
    tables = results.scan("videos", columns, each=lambda videos: videos.filter(pc.is_in(videos[name], wanted)))
    rows: list[dict[str, Any]] = pa.concat_tables(tables).sort_by("video_id").to_pylist()
    if not rows:
        missing = f"video {paths[0]}" if video_id is None else f"video_id {video_id}"
        raise ValueError(f"labels: {labels} has no {missing}; it has {_some(results)}")
    if len(rows) > 1:
        ids = ", ".join(row["video_id"] for row in rows[:_SUGGESTED])
        raise ValueError(f"labels: {labels} has {video} {len(rows)} times; choose one with --video_id: {ids}")
    if rows[0]["status"] != "ok":
        raise ValueError(f"video: {video} could not be labelled ({rows[0]['error']})")
    return str(rows[0]["video_id"])


def _some(results: "Results") -> str:
    """Returns a list of a few videos of the labels, and the number of the others."""
    import pyarrow as pa

    first = results.scan("videos", ("video_id", "uri"), each=_first)
    rows = pa.concat_tables([table for _, table in first]).sort_by("video_id").to_pylist()[:_SUGGESTED]
    more = sum(number for number, _ in first) - len(rows)
    return ", ".join(f"{row['uri']} ({row['video_id']})" for row in rows) + (f" and {more} more" if more > 0 else "")


def _first(videos: "pa.Table") -> tuple[int, "pa.Table"]:
    return videos.num_rows, videos.sort_by("video_id").slice(0, _SUGGESTED)


def _uris(path: Path) -> tuple[str, str]:
    return str(path), path.as_uri()


if __name__ == "__main__":
    start(main)
