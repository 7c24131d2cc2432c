"""Labels a few short Shapes videos made on the spot and renders the labels.

python -m jobs.demo --output demo

The output folder then has the videos, the tables, an overlay MP4 for each video, and a contact sheet. The exit code
is 0, 1 if it failed, 2 for bad input, 75 if it was interrupted.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from jobs.command import check_local, run_job, start
from jobs.label import print_summary
from jobs.options import read_config
from jobs.progress import LabelProgress
from pipelines.labelling.config import LabelConfig

MARKER = ".openvis-demo"
"""File that marks a folder as made by this job."""

SHEET = "contact-sheet.png"

TILES = 4
"""Pictures of each video on the contact sheet."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """A demo.

    Attributes:
        output: empty folder, or folder of an earlier demo.
        videos: number of videos.
    """

    output: str = "demo"
    videos: int = 3

    def __post_init__(self) -> None:
        check_local("output", self.output)
        if self.videos < 1:
            raise ValueError(f"videos: expected at least 1, got {self.videos}")
        folder = Path(self.output)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"output: {folder} is a file; choose a folder")
        if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
            raise ValueError(f"output: {folder} is not empty and not of an earlier demo; choose another folder")


def main(arguments: list[str] | None = None) -> int:
    """Runs the demo; returns the exit code."""
    return run_job("demo", lambda: _demo(arguments), interrupted="run it again to start over")


def _demo(arguments: list[str] | None) -> int:
    options = read_config("demo", __doc__, DemoConfig, arguments)

    from pipelines.cluster.connection import disconnect
    from pipelines.labelling.run import label_videos
    from pipelines.shapes.files import write_split
    from pipelines.shapes.scenes import SceneConfig

    output = Path(options.output)
    remove_earlier(output)
    output.mkdir(parents=True, exist_ok=True)
    (output / MARKER).touch()

    shapes = write_split(output, "novel", options.videos, 0, SceneConfig())
    config = LabelConfig(
        input=str(shapes.path / "videos"),
        output=str(output / "labels"),
        vocabulary=str(shapes.path / "vocabulary.txt"),
    )
    progress = LabelProgress()
    summary = label_videos(config, progress)
    progress.end()
    print_summary(summary, config.output)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(disconnect)  # takes seconds, in which the overlays are rendered
        sheet = render_overlays(config.output, output)
    print(f"overlays: {output}/*.mp4, contact sheet: {sheet}")
    print(f"to see, search and judge the tracks: {sys.executable} -m jobs.review --labels {config.output}")
    return 1 if summary.failures else 0


def remove_earlier(output: Path) -> None:
    """Removes what an earlier demo made, and nothing else in the folder."""
    for folder in ("novel", "labels"):
        shutil.rmtree(output / folder, ignore_errors=True)
    for file in (*output.glob("novel-*.mp4"), output / SHEET):
        file.unlink(missing_ok=True)


def render_overlays(labels: str, output: Path) -> Path:
    """Renders every labelled video and a contact sheet; returns the sheet's path."""
    from pipelines.archive.tables import Results
    from pipelines.overlays.contact_sheet import Tile, contact_sheet
    from pipelines.overlays.render import render_video
    from pipelines.storage.files import Storage

    results = Results(Storage(labels))

    def render(row: dict[str, Any]) -> Sequence[Tile]:
        tracks, masks = (results.read(table, video_id=row["video_id"]) for table in ("tracks", "masks"))
        video = Path(row["uri"])
        return render_video(video, tracks, masks, output / f"{video.stem}.mp4", most=6, tiles=TILES).tiles

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        tiles = threads.map(render, results.read("videos").sort_by("uri").to_pylist())
        contact_sheet(list(chain.from_iterable(tiles)), output / SHEET, columns=TILES)
    return output / SHEET


if __name__ == "__main__":
    start(main)
