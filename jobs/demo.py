"""Labels a few short Shapes videos made on the spot and renders what was found.

python -m jobs.demo --output demo

The folder then holds the videos, the tables, an overlay MP4 for each video, and a contact sheet.
"""

import argparse
import shutil
import sys
from pathlib import Path

from jobs.label import ProgressLine, print_summary
from pipelines.datasets.shapes_files import write_split
from pipelines.datasets.shapes_scenes import SceneConfig
from pipelines.label import label_videos
from pipelines.label_config import LabelConfig
from pipelines.render import Tile, contact_sheet, render_video
from pipelines.results import Results
from pipelines.storage import Storage

MARKER = ".openvis-demo"
"""File that says that a folder was made by this job."""

SHEET = "contact-sheet.png"

TILES = 4
"""Pictures of each video on the contact sheet."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path("demo"), help="empty or earlier demo's folder (default: demo)"
    )
    parser.add_argument("--videos", type=int, default=3, help="number of videos (default: 3)")
    options = parser.parse_args(arguments)
    output: Path = options.output
    if options.videos < 1:
        parser.error(f"videos: must be at least 1, got {options.videos}")
    if output.exists() and not output.is_dir():
        parser.error(f"output: {output} is a file; choose a folder")
    if output.exists() and any(output.iterdir()) and not (output / MARKER).exists():
        parser.error(f"output: {output} is not empty and no earlier demo; choose another folder")
    remove_earlier(output)
    output.mkdir(parents=True, exist_ok=True)
    (output / MARKER).touch()

    shapes = write_split(output, "novel", options.videos, 0, SceneConfig())
    config = LabelConfig(
        input=str(shapes.path / "videos"),
        output=str(output / "labels"),
        vocabulary=str(shapes.path / "vocabulary.txt"),
    )
    summary = label_videos(config, ProgressLine())
    print_summary(summary, config.output)
    sheet = render_overlays(config.output, output)
    print(f"overlays: {output}/*.mp4, contact sheet: {sheet}")
    return 1 if summary.failures else 0


def remove_earlier(output: Path) -> None:
    """Removes what an earlier demo made, and nothing that somebody put beside it."""
    for folder in ("novel", "labels"):
        shutil.rmtree(output / folder, ignore_errors=True)
    for file in (*output.glob("novel-*.mp4"), output / SHEET):
        file.unlink(missing_ok=True)


def render_overlays(labels: str, output: Path) -> Path:
    """Renders every labelled video and a contact sheet; returns the sheet's path."""
    results = Results(Storage(labels))
    tiles: list[Tile] = []
    for row in results.read("videos").sort_by("uri").to_pylist():
        tracks, masks = (results.read(table, video_id=row["video_id"]) for table in ("tracks", "masks"))
        video = Path(row["uri"])
        rendered = render_video(video, tracks, masks, output / f"{video.stem}.mp4", most=6, tiles=TILES)
        tiles += rendered.tiles
    contact_sheet(tiles, output / SHEET, columns=TILES)
    return output / SHEET


if __name__ == "__main__":
    sys.exit(main())
