"""What the pipeline costs beside the bare model, and its memory: `python -m tests.benchmarks.pipeline`, a quarter hour.

Parts: `short`, `in_flight`, `speed` and `memory`; those that are named run alone.

Short videos: CPU time of all processes for each of many videos of eight frames, with a stand-in for the model: the
slope between 240 and 2,400 of them, so that what a run costs once cancels.

Batches in flight: frames/s with one to four batches at once in a model actor, with a stand-in for model and GPU: a
batch of eight has the GPU to itself for 300 ms, and takes 75 ms beside it. The process sleeps in both.

Speed: the paper's model (random weights; ViT-B/32, ResNet-50, 100 queries, all of them kept) on the same frames, by
turns: from memory in this process, while no Ray runs, one batch at a time and as many as a model actor works on, and
through Ray Data from an encoded file to tables. Start-up of Ray and its workers is left out, as a nightly job pays it
once: the model is timed from the end of its first batches, the pipeline from when two more have come.

Memory: the built-in model on a video of one minute, then, in a new Ray, on one of twenty minutes, on the minute again,
which now finds all processes started, and on a thousand short videos; with an object store of 512 MB. Processes that
Ray itself needs are not counted; decoders are, with the workers that have them.
"""

import argparse
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import numpy as np
import psutil
import ray
import torch
from ray._private.internal_api import memory_summary

from openvis_model.config import paper
from openvis_model.inst_former import InstFormer
from openvis_model.instances import Instances
from openvis_model.options import AssociationConfig, VideoTrackerConfig
from openvis_model.weights.checkpoint import save_checkpoint
from openvis_model.weights.files import BUILT_IN
from pipelines.cluster.connection import KEEP_WORKERS
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.model_operator import AT_ONCE, Model
from pipelines.labelling.progress import Progress
from pipelines.labelling.rows import BatchRow
from pipelines.labelling.run import label_videos
from pipelines.models import load_model
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from pipelines.video.decode import decode
from pipelines.video.index import plan_video
from pipelines.video.options import Sampling
from tests.pipelines.labelling.discs import DiscModel

KEEP_ALL = VideoTrackerConfig(association=AssociationConfig(min_similarity=-1.0), objectness_threshold=0.0)
DECODER = "pipelines.video.isolation"
WORKERS = ("ray::MapWorker", "ray::TrackerActor", "ray::MapBatches", "ray::Write", "ray::IDLE")
FPS, MINUTES, SHORT_VIDEOS = 8, 20, 1000
SLOPE = (240, 2400)
GPU_S, BESIDE_S, TIMES, ROUNDS = 0.3, 0.075, 11, 2
HEIGHT, WIDTH, BATCH, FRAMES = 384, 640, 4, 48


@dataclass
class Watch:
    """When frames came, and the most memory that workers, driver and object store took, MB, by tenths of the frames.

    Attributes:
        frames: how many there will be.
        processes: how many workers there were when they took most.
    """

    frames: int
    came: list[tuple[float, int]] = field(default_factory=list)
    workers: dict[int, float] = field(default_factory=dict)
    driver: dict[int, float] = field(default_factory=dict)
    store: float = 0
    tenth: int = 0
    processes: int = 0

    def __call__(self, done: Progress, total: int) -> None:
        self.tenth = 10 * done.frames // (self.frames + 1)
        if done.frames and (not self.came or done.frames > self.came[-1][1]):
            self.came.append((time.perf_counter(), done.frames))

    def rate(self) -> float:
        """Frames per second between the first frames and the last."""
        (start, first), (end, last) = self.came[0], self.came[-1]
        return (last - first) / (end - start)

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Looks at memory twice a second."""
        stop = threading.Event()
        thread = threading.Thread(target=self._sample, args=(stop,))
        thread.start()
        yield
        stop.set()
        thread.join()

    def _sample(self, stop: threading.Event) -> None:
        while not stop.wait(0.5):
            workers = 0.0
            processes = 0
            for process in psutil.process_iter(["name"]):
                with suppress(psutil.Error):  # ended meanwhile
                    name = process.info["name"] or ""
                    if name.startswith(WORKERS) or (name.startswith("python") and DECODER in process.cmdline()):
                        workers += process.memory_full_info().uss / 2**20
                        processes += 1
            if workers > max(self.workers.values(), default=0.0):
                self.processes = processes
            driver = psutil.Process().memory_full_info().uss / 2**20
            used = re.search(
                r"memory usage (\d+) MiB", memory_summary(ray.get_runtime_context().gcs_address, stats_only=True)
            )
            assert used
            self.store = max(self.store, float(used[1]))
            for most, now in ((self.workers, workers), (self.driver, driver)):
                most[self.tenth] = max(most.get(self.tenth, 0), now)


class Noted(Model):
    """A model that notes when its calls begin and end."""

    notes: Path

    @classmethod
    def to(cls, notes: Path, kind: type[Model] = Model) -> type[Model]:
        """Returns a class of models that write to a file."""
        return type("Model", (cls, kind), {"notes": notes})

    @staticmethod
    def read(notes: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the begin and the end of each call, seconds, and its frames."""
        begins, ends, frames = np.loadtxt(notes, ndmin=2).T
        return begins, ends, frames

    def _instances(self, rows: Sequence[BatchRow]) -> list[Instances] | Exception:
        begin = time.time()
        found = super()._instances(rows)
        with self.notes.open("a") as file:
            file.write(f"{begin} {time.time()} {sum(len(row.frames) for row in rows)}\n")
        return found


class SleepingModel(DiscModel):
    """Stands for a model on a GPU, which works on one batch at a time."""

    def __init__(self, checkpoint: Any, **options: Any) -> None:
        super().__init__(checkpoint, **options)
        self.gpu = threading.Lock()

    def _instances(self, rows: Sequence[BatchRow]) -> list[Instances] | Exception:
        time.sleep(BESIDE_S)
        with self.gpu:
            time.sleep(GPU_S)
        return super()._instances(rows)


@contextmanager
def cluster() -> Iterator[None]:
    """A Ray of this machine's, until the block ends."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # as `connect` has it
    ray.init(
        num_cpus=3,
        num_gpus=1,  # of which only Ray knows
        object_store_memory=512 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _system_config=KEEP_WORKERS,
    )
    try:
        yield
        spilled = re.search(r"Spilled.*", memory_summary(ray.get_runtime_context().gcs_address, stats_only=True))
        if spilled:
            print(f"object store of 512 MB: {spilled[0]}")
    finally:
        ray.shutdown()


def label(
    source: Path,
    names: Path,
    output: Path,
    frames: int,
    checkpoint: Path | None = None,
    batch_size: int = 8,
    model_gpus: float = 0.0,
) -> Watch:
    """Labels a source that has so many frames, and watches."""
    config = LabelConfig(
        input=str(source),
        output=str(output),
        vocabulary=str(names),
        checkpoint=checkpoint and str(checkpoint),
        batch_size=batch_size,
        model_gpus=model_gpus,
        tracker=KEEP_ALL,
        objectness_floor=0.0,
    )
    watch = Watch(frames)
    with watch.sampling() if checkpoint is None else nullcontext():  # it takes a sixth of a core itself
        summary = label_videos(config, watch)
    assert not summary.failures
    return watch


def bare_rate(video: Path, checkpoint: Path, at_once: int) -> float:
    """Frames per second of the model alone, frames already in memory, with so many batches at a time."""
    model, cores = load_model(str(checkpoint)), torch.get_num_threads()
    plan = plan_video(str(video), Sampling(), None)
    frames = decode(str(video), plan.info, plan.segments[0], size=(HEIGHT, WIDTH), batch_size=BATCH)
    batches = [torch.from_numpy(batch.frames) for batch in frames]
    torch.set_num_threads(cores // at_once)
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(model, batches[:at_once]))
        start = time.perf_counter()
        list(pool.map(model, batches[at_once:]))
        taken = time.perf_counter() - start
    torch.set_num_threads(cores)
    return BATCH * len(batches[at_once:]) / taken


def piped_rate(video: Path, checkpoint: Path, names: Path, output: Path) -> tuple[float, float]:
    """Frames per second of the pipeline once it is under way, and the share of that time with no batch at work."""
    notes = output.with_suffix(".txt")
    with cluster(), patch("pipelines.labelling.pipeline.Model", Noted.to(notes)):
        label(video, names, output, FRAMES, checkpoint, BATCH)
    begins, ends, frames = Noted.read(notes)
    since, until = sorted(ends)[2 * AT_ONCE - 1], ends.max()  # processes that write start with the first batches
    after = np.clip(since, begins, ends)
    busy, last = 0.0, since
    for begin, end in sorted(zip(after, ends, strict=True)):
        busy += max(0.0, end - max(begin, last))
        last = max(last, end)
    done = frames * (ends - after) / (ends - begins)  # of a batch that was at work then, the rest
    return done.sum() / (until - since), 1 - busy / (until - since)


def repeat(video: Path, times: int, output: Path) -> None:
    """Writes a video that repeats another one, without encoding it again."""
    with av.open(str(video)) as source, av.open(str(output), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        packets = [packet for packet in source.demux(stream) if packet.size]
        span = max(packet.pts + packet.duration for packet in packets)
        content = [(bytes(packet), packet.pts, packet.dts, packet) for packet in packets]
        for turn in range(times):
            for data, pts, dts, original in content:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.duration = copy, original.time_base, original.duration
                packet.pts, packet.dts, packet.is_keyframe = pts + turn * span, dts + turn * span, original.is_keyframe
                target.mux(packet)


def bench_speed(root: Path, names: Path) -> None:
    """The pipeline against the bare model, before it and after it."""
    scene = SceneConfig(frames=FRAMES, height=HEIGHT, width=WIDTH)
    video = next((write_split(root / "large", "valid", 1, 0, scene).path / "videos").iterdir())
    checkpoint = root / "checkpoint"
    torch.manual_seed(0)
    save_checkpoint(InstFormer(paper()), checkpoint)
    bare: dict[int, list[float]] = {1: [], AT_ONCE: []}
    piped = []
    for turn in range(ROUNDS + 1):
        for at_once, rates in bare.items():
            rates.append(bare_rate(video, checkpoint, at_once))
            print(f"  the model alone, {at_once} at a time: {rates[-1]:.3f} frames/s", flush=True)
        if turn < ROUNDS:
            rate, idle = piped_rate(video, checkpoint, names, root / f"speed-{turn}")
            piped.append(rate)
            print(f"  pipeline: {rate:.3f} frames/s, no batch at work for {100 * idle:.1f} % of the time", flush=True)
    for at_once, rates in bare.items():
        print(f"pipeline: {np.mean(piped) / np.mean(rates):.3f} × the model alone, {at_once} at a time", flush=True)


def bench_in_flight(root: Path, names: Path) -> None:
    """Frames per second of a model actor from its first call to its last, by the batches that it works on at once."""
    scene = SceneConfig(frames=FRAMES, height=HEIGHT, width=WIDTH)
    piece = next((write_split(root / "flight", "valid", 1, 0, scene).path / "videos").iterdir())
    repeat(piece, TIMES, root / "flight.mp4")
    rates: dict[int, list[float]] = {at_once: [] for at_once in (1, 2, 3, 4)}
    for turn in range(ROUNDS):
        for at_once, found in rates.items():
            output = root / f"flown-{turn}-{at_once}"
            notes = output.with_suffix(".txt")
            model = Noted.to(notes, SleepingModel)
            with cluster(), patch.multiple("pipelines.labelling.pipeline", Model=model, AT_ONCE=at_once):
                label(root / "flight.mp4", names, output, TIMES * FRAMES, BUILT_IN, model_gpus=1.0)
            begins, ends, frames = Noted.read(notes)
            found.append(frames.sum() / (ends.max() - begins.min()))
    for at_once, found in rates.items():
        print(
            f"{at_once} in flight: {max(found):.1f} frames/s of {8 / GPU_S:.1f} "
            f"({', '.join(f'{rate:.1f}' for rate in found)}), load {psutil.getloadavg()[0]:.1f}",
            flush=True,
        )


def cpu_s() -> float:
    """CPU time so far of this process and of those below it that live, seconds."""
    total = 0.0
    for process in (this := psutil.Process(), *this.children(recursive=True)):
        with suppress(psutil.Error):  # ended meanwhile
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def bench_short(root: Path, names: Path) -> None:
    """CPU time of a short video beside the model: decoding, the pipeline, tracking, writing."""
    drawn = list((write_split(root / "slope", "valid", 12, 0, SceneConfig(frames=8)).path / "videos").iterdir())
    for videos in SLOPE:
        (root / f"slope-{videos}").mkdir()
        for i in range(videos):
            (root / f"slope-{videos}/{i}.mp4").hardlink_to(drawn[i % len(drawn)])
    taken = []
    with cluster(), patch("pipelines.labelling.pipeline.Model", DiscModel):
        for turn, videos in enumerate((SLOPE[0], *SLOPE)):  # workers start in the first one
            start = cpu_s()
            config = LabelConfig(
                input=str(root / f"slope-{videos}"), output=str(root / f"sloped-{turn}"), vocabulary=str(names)
            )
            assert label_videos(config).ok == videos
            taken.append(cpu_s() - start)
    slope = (taken[2] - taken[1]) / (SLOPE[1] - SLOPE[0])
    print(f"a short video takes {1e3 * slope:.0f} ms of CPU beside the model; a run of {SLOPE[0]} {taken[1]:.1f} s")


def bench_memory(root: Path, names: Path) -> None:
    """Peaks for a minute, twenty, and many short videos, of which those of the second and the last tenth."""
    minute = next((write_split(root / "minute", "valid", 1, 0, SceneConfig(frames=60 * FPS)).path / "videos").iterdir())
    repeat(minute, MINUTES, root / "long.mp4")
    drawn = list((write_split(root / "short", "valid", 20, 0, SceneConfig(frames=8)).path / "videos").iterdir())
    (root / "many").mkdir()
    for i in range(SHORT_VIDEOS):
        (root / "many" / f"{i}.mp4").hardlink_to(drawn[i % len(drawn)])
    long = (f"{MINUTES} minutes", root / "long.mp4", MINUTES * 60 * FPS)
    first = ("1 minute", minute, 60 * FPS)
    again = ("1 minute, after them", minute, 60 * FPS)
    many = (f"{SHORT_VIDEOS} videos", root / "many", SHORT_VIDEOS * 8)
    taken: dict[str, float] = {}
    for sources in ((first,), (long, again, many)):
        with cluster():
            for name, source, frames in sources:
                watch = label(source, names, root / f"labels-{len(taken)}", frames)
                taken[name] = max(watch.workers.values())
                print(
                    f"{name:<22}{watch.came[-1][1]:>6} frames, {watch.rate():5.1f}/s: "
                    f"{watch.processes} workers {taken[name]:.0f} MB, "
                    f"driver {max(watch.driver.values()):.0f} MB, store {watch.store:.0f} MB",
                    flush=True,
                )
    for name, _, _ in (first, again):
        print(f"{long[0]}: {taken[long[0]] / taken[name]:.2f} × the workers' memory of {name}")
    for what, most in (("workers", watch.workers), ("driver", watch.driver)):
        print(f"{what} in the last tenth of {many[0]}: {most[9] / most[1]:.2f} × those in the second")


PARTS = {"short": bench_short, "in_flight": bench_in_flight, "speed": bench_speed, "memory": bench_memory}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART")
    parts = parser.parse_args().parts or list(PARTS)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, load {psutil.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = write_split(root, "valid", 1, 0, SceneConfig()).path / "vocabulary.txt"
        (root / "few.txt").write_text("".join(names.read_text().splitlines(keepends=True)[::25]))
        for part in parts:
            PARTS[part](root, names if part == "memory" else root / "few.txt")


if __name__ == "__main__":
    main()
