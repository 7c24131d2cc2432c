"""Makes a split of Shapes, the miniature benchmark: videos of moving objects with exact masks, tracks and categories.

python -m jobs.make_shapes --output shapes --split train --videos 100
"""

import argparse
import sys
import time
from pathlib import Path
from typing import NoReturn

from pipelines.datasets.shapes_files import write_split
from pipelines.datasets.shapes_scenes import SPLITS, SceneConfig

_SPLITS_HELP = """splits:
  train     the 40 base categories, which may be trained on
  valid     the same categories in other scenes
  novel     200 categories that training never shows
  hard      all of those; fast look-alikes that cross, hide, leave and return
  pretrain  all 1,000 categories, for the image-text pre-training of the miniature CLIP
"""


class _Parser(argparse.ArgumentParser):
    """Reports bad arguments in one line, without repeating the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"make_shapes: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    scene = SceneConfig()
    parser = _Parser(
        prog="python -m jobs.make_shapes",
        description="Write a split of Shapes: MP4 videos, YouTube-VIS annotations and the vocabulary, in OUTPUT/SPLIT.",
        epilog=_SPLITS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to, made if missing")
    parser.add_argument("--split", choices=SPLITS, required=True, help="which world, see below")
    parser.add_argument("--videos", type=int, required=True, metavar="N", help="number of videos")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed gives other videos (default: 0)")
    for name in ("frames", "height", "width", "fps"):
        text = {"frames": "frames per video", "fps": "frames per second of playback"}.get(name, "in pixels, even")
        value = getattr(scene, name)
        parser.add_argument(f"--{name}", type=int, default=value, metavar="N", help=f"{text} (default: {value})")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="to work in (default: 1)")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Runs the job; exits with code 2 and one line on stderr if the arguments are bad."""
    parser = _parser()
    options = parser.parse_args(arguments)
    start = time.monotonic()

    def progress(done: int) -> None:
        rate = done * options.frames / (time.monotonic() - start)
        line = f"{options.split}: {done}/{options.videos} videos, {rate:.0f} frames/s"
        if sys.stderr.isatty():
            print(f"\r{line} ", end="\n" if done == options.videos else "", file=sys.stderr, flush=True)
        elif done == options.videos or done * 10 // options.videos > (done - 1) * 10 // options.videos:
            print(line, file=sys.stderr)

    try:
        config = SceneConfig(frames=options.frames, height=options.height, width=options.width, fps=options.fps)
        summary = write_split(
            options.output,
            options.split,
            options.videos,
            options.seed,
            config,
            processes=options.processes,
            progress=progress,
        )
    except ValueError as error:
        parser.error(str(error))
    print(
        f"{summary.path}: {summary.videos} videos, {summary.videos * config.frames} frames, {summary.tracks} tracks, "
        f"{summary.masks} masks in {time.monotonic() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
