"""Makes a split of Shapes, the miniature benchmark: MP4 videos, YouTube-VIS annotations and the vocabulary.

python -m jobs.make_shapes --output shapes --split train --videos 100

train           the 40 base categories, for training
valid           the base categories in other scenes
novel           200 categories that training never shows
hard            base and novel categories: fast look-alikes that cross, hide, leave and return
crossing        base and novel categories, for tests of tracking: every object has a double and meets it; objects stop,
                leave and return; the camera moves and blurs
crossing_train  the same of the base categories
pretrain        all 1,000 categories, for the image-text pre-training of the miniature CLIP
"""

import time
from dataclasses import dataclass
from pathlib import Path

from jobs.command import check_local, run_job, start
from jobs.options import read_config
from jobs.progress import ProgressLine
from pipelines.shapes.scenes import SceneConfig, Split


@dataclass(frozen=True, kw_only=True)
class ShapesConfig:
    """A split.

    Attributes:
        output: folder to write to, created if missing; the split becomes a folder in it.
        split: the split to make.
        videos: number of videos.
        seed: seed of the scenes; another seed makes other videos.
        frames: frames per video.
        height: height of the frames, pixels, even.
        width: width of the frames, pixels, even.
        fps: frames per second of playback.
        every: keeps every n-th frame of the scene: motion is n times as fast.
        processes: number of processes; the files do not depend on it.
    """

    output: str
    split: Split
    videos: int
    seed: int = 0
    frames: int = SceneConfig.frames
    height: int = SceneConfig.height
    width: int = SceneConfig.width
    fps: int = SceneConfig.fps
    every: int = SceneConfig.every
    processes: int = 1

    def __post_init__(self) -> None:
        check_local("output", self.output)


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job("make_shapes", lambda: _make(arguments), interrupted="run it again to start over")


def _make(arguments: list[str] | None) -> int:
    config = read_config("make_shapes", __doc__, ShapesConfig, arguments)

    from pipelines.shapes.files import write_split

    begin, line = time.monotonic(), ProgressLine()

    def progress(done: int) -> None:
        rate = done * config.frames / (time.monotonic() - begin)
        text = f"{config.split}: {done}/{config.videos} videos, {rate:.0f} frames/s"
        line.show(text, finished=done == config.videos)

    scene = SceneConfig(
        frames=config.frames, height=config.height, width=config.width, fps=config.fps, every=config.every
    )
    summary = write_split(
        Path(config.output),
        config.split,
        config.videos,
        config.seed,
        scene,
        processes=config.processes,
        progress=progress,
    )
    print(
        f"{summary.path}: {summary.videos} videos, {summary.videos * config.frames} frames, {summary.tracks} tracks, "
        f"{summary.masks} masks in {time.monotonic() - begin:.1f} s"
    )
    return 0


if __name__ == "__main__":
    start(main)
