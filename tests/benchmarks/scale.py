"""Many videos and a long one: `python -m tests.benchmarks.scale`, half an hour.

3,000 videos of eight frames, and one of 200,000 frames, of 128 × 96 pixels, every frame, with a stand-in for the model
that finds two objects in each. Every frame must be in the output; time and memory are printed.
"""

import tempfile
from pathlib import Path
from unittest.mock import patch

import psutil
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.cluster.connection import connect
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from tests.benchmarks.pipeline import cpu_s, label, repeat
from tests.pipelines.labelling.discs import DiscModel

VIDEOS, FRAMES_OF_EACH, LONG, PIECE = 3_000, 8, 200_000, 400


def report(name: str, source: Path, names: Path, output: Path, frames: int, videos: int) -> None:
    """Labels a source, checks that all of its frames are in the output, and prints a line."""
    before = cpu_s()
    watch = label(source, names, output, frames)
    spent = cpu_s() - before
    masks = ds.dataset(output / "masks").to_table(["video_id", "frame"])
    shown = masks.group_by(["video_id", "frame"]).aggregate([([], "count_all")])
    assert len(shown) == frames
    assert pc.all(pc.equal(shown["count_all"], 2)).as_py()
    assert len(pc.unique(shown["video_id"])) == videos
    workers, driver = watch.workers, watch.driver
    print(
        f"{name}: {watch.came[-1][0] - watch.came[0][0]:.0f} s, {1e3 * spent / videos:.0f} ms of CPU a video, "
        f"{1e3 * spent / frames:.1f} a frame; workers take {max(workers.values()):.0f} MB, in the last tenth "
        f"{workers[9] / workers[1]:.2f} × those in the second; the driver {max(driver.values()):.0f} MB, "
        f"{driver[9] / driver[1]:.2f} ×",
        flush=True,
    )


def main() -> None:
    """Prints a line for each."""
    connect(3)
    print(f"load {psutil.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as folder, patch("pipelines.labelling.pipeline.Model", DiscModel):
        root = Path(folder)
        scene = SceneConfig(frames=FRAMES_OF_EACH, height=96, width=128)
        split = write_split(root / "short", "valid", 20, 0, scene).path
        drawn, names = list((split / "videos").iterdir()), split / "vocabulary.txt"
        (root / "many").mkdir()
        for i in range(VIDEOS):
            (root / "many" / f"{i}.mp4").hardlink_to(drawn[i % len(drawn)])
        piece = SceneConfig(frames=PIECE, height=96, width=128)
        video = next((write_split(root / "piece", "valid", 1, 0, piece).path / "videos").iterdir())
        repeat(video, LONG // PIECE, root / "long.mp4")
        many = VIDEOS * FRAMES_OF_EACH
        report(f"{VIDEOS} videos", root / "many", names, root / "labels-many", many, VIDEOS)
        report(f"{LONG} frames", root / "long.mp4", names, root / "labels-long", LONG, 1)


if __name__ == "__main__":
    main()
