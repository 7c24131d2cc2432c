"""What the pipeline costs beside the bare model, and its memory: `python -m tests.benchmarks.pipeline`, some minutes.

Both run the same model on the same frames in one run: once from memory in this process, once through Ray Data from
encoded files to tables. Start-up of Ray and its workers is left out, as a nightly job pays it once: the pipeline is
timed between its first and its last frame.
"""

import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import ray
import torch
from ray._private.internal_api import memory_summary

from openvis_model.association import AssociationConfig
from openvis_model.video_tracker import VideoTrackerConfig
from pipelines.datasets.shapes_files import write_split
from pipelines.datasets.shapes_scenes import SceneConfig
from pipelines.decode import decode
from pipelines.label import LabelConfig, label_videos
from pipelines.models import load_model
from pipelines.track_sink import Progress
from pipelines.video_index import Sampling, plan_video

BATCH = 8
FRAMES, LONGER = 240, 10


def bare_rate(video: Path) -> float:
    """Frames per second of the model alone, frames already in memory."""
    model = load_model(None).fold_for_inference()
    plan = plan_video(str(video), Sampling(), None)
    batches = [
        torch.from_numpy(batch.frames)
        for batch in decode(str(video), plan.info, plan.segments[0], size=(96, 128), batch_size=BATCH)
    ]
    model(batches[0])
    start = time.perf_counter()
    for batch in batches:
        model(batch)
    return sum(map(len, batches)) / (time.perf_counter() - start)


class Watch:
    """Times a run between its first and last frames, and samples memory of all of Ray's processes beside it."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []
        self.peak = 0

    def __call__(self, done: Progress, total: int) -> None:
        self.seen.append((time.perf_counter(), done.frames))

    def sample(self, stop: threading.Event) -> None:
        """Runs in a thread until the run has ended."""
        while not stop.wait(0.5):
            workers = [p for p in psutil.process_iter(["name"]) if (p.info["name"] or "").startswith("ray::")]
            memory = 0
            for worker in workers:
                with suppress(psutil.Error):  # ended meanwhile
                    memory += worker.memory_full_info().uss
            self.peak = max(self.peak, memory)

    def rate(self) -> float:
        """Frames per second between the first report with frames and the last with new ones."""
        moving = [entry for i, entry in enumerate(self.seen) if entry[1] and (not i or entry[1] > self.seen[i - 1][1])]
        (start, first), (end, last) = moving[0], moving[-1]
        return (last - first) / (end - start)


def run(source: Path, names: Path, output: Path) -> Watch:
    """Labels a folder and watches."""
    watch, stop = Watch(), threading.Event()
    thread = threading.Thread(target=watch.sample, args=(stop,))
    thread.start()
    config = LabelConfig(
        input=str(source),
        output=str(output),
        vocabulary=str(names),
        batch_size=BATCH,
        tracker=VideoTrackerConfig(association=AssociationConfig(min_similarity=-1.0), objectness_threshold=0.0),
        objectness_floor=0.0,
    )
    summary = label_videos(config, watch)
    stop.set()
    thread.join()
    assert not summary.failures
    assert not summary.missing
    return watch


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        short = write_split(root / "short", "valid", 1, 0, SceneConfig(frames=FRAMES)).path
        long = write_split(root / "long", "valid", 1, 0, SceneConfig(frames=LONGER * FRAMES)).path
        names = short / "vocabulary.txt"
        ray.init(num_cpus=3, object_store_memory=512 * 2**20, include_dashboard=False, log_to_driver=False)
        bare = bare_rate(next((short / "videos").iterdir()))
        one, many = run(short, names, root / "a"), run(long, names, root / "b")
        bare = max(bare, bare_rate(next((short / "videos").iterdir())))
        spilled = "Spilled" in memory_summary(stats_only=True)
        print(f"bare model {bare:.1f} frames/s, pipeline {many.rate():.1f}: {many.rate() / bare:.2f} × the bare model")
        peaks = f"{one.peak / 2**20:.0f} MB for {FRAMES} frames, {many.peak / 2**20:.0f} MB for {LONGER} times as many"
        print(f"peak memory of the workers: {peaks}")
        print("object store of 512 MB:", "spilled" if spilled else "nothing spilled")


if __name__ == "__main__":
    main()
