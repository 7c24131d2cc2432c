"""`python -m tests.benchmarks.evaluation`: our evaluation against the official method, restated plainly.

300 videos of 30 frames of 360 × 640 pixels, 3 to 8 objects and 40 predictions each. Predictions are noisy copies of
objects and false positives, some under the right category; in the second kind of data a model has 10 tracks per video
and each is predicted under 4 categories, as models do that list their best pairs of track and category.
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from pycocotools import mask as coco

from pipelines.datasets import run_lengths
from pipelines.datasets.annotations import AnnotatedTrack, AnnotatedVideo, Category, GroundTruth, Mask, PredictedTrack
from pipelines.datasets.shared_pixels import compare_tubes
from pipelines.metrics.rules import UVO, YTVIS, ApRules
from pipelines.metrics.video_ap import video_ap
from tests.reference_evaluation import NAMES, plain_ap

HEIGHT, WIDTH, FRAMES, PREDICTIONS = 360, 640, 30, 40
REPEATS = 3  # videos that show the same, with other labels and scores: drawing takes longer than evaluating

Blob = tuple[float, float, float, np.ndarray]  # centre, radius (pixels) and waviness of its outline


def blob(rng: np.random.Generator) -> Blob:
    return (
        rng.uniform(0.1, 0.9) * HEIGHT,
        rng.uniform(0.1, 0.9) * WIDTH,
        rng.uniform(20, 110),
        rng.normal(0, 0.12, (2, 5)),
    )


def near(it: Blob, rng: np.random.Generator) -> Blob:
    """About where an object is: from nearly right to too far off to count."""
    noise = rng.choice([0.02, 0.08, 0.25])
    y, x, radius, waves = it
    return (
        y + noise * radius * rng.normal(),
        x + noise * radius * rng.normal(),
        radius * np.exp(noise * rng.normal()),
        waves + 0.3 * noise * rng.normal(size=waves.shape),
    )


def draw(it: Blob, rng: np.random.Generator) -> tuple[Mask | None, ...]:
    """A track that drifts, with an outline that trembles by a pixel or so; it is absent in a tenth of the frames."""
    y, x, radius, waves = it
    vy, vx = rng.normal(0, 1.5, 2)
    angles, k = np.linspace(-np.pi, np.pi, 257), np.arange(2, 7)[:, None]
    encoded = []
    for t in range(FRAMES):
        outline = radius * (1 + waves[0] @ np.sin(k * angles) + waves[1] @ np.cos(k * angles))
        outline = np.maximum(outline + rng.normal(0, 0.7, 257), 2)
        reach = outline.max() + 1
        top, left = max(0, int(y + vy * t - reach)), max(0, int(x + vx * t - reach))
        rows, columns = np.ogrid[top : min(HEIGHT, top + int(2 * reach)), left : min(WIDTH, left + int(2 * reach))]
        dy, dx = rows - y - vy * t, columns - x - vx * t
        angle = ((np.arctan2(dy, dx) + np.pi) * (256 / (2 * np.pi))).astype(np.int64)
        dense = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        dense[rows, columns] = dy * dy + dx * dx < outline[angle] ** 2
        encoded.append(coco.encode(dense)["counts"])
    absent = rng.random(FRAMES) < 0.1
    return tuple(None if gone else Mask(HEIGHT, WIDTH, c) for gone, c in zip(absent, encoded, strict=True))


def draw_video(seed: int) -> tuple[list[tuple[Mask | None, ...]], list[tuple[int, tuple[Mask | None, ...]]]]:
    """Objects, and predicted tracks with the object that they show, -1 if none."""
    rng = np.random.default_rng(seed)
    blobs = [blob(rng) for _ in range(rng.integers(3, 9))]
    shown = [int(rng.integers(len(blobs))) if rng.random() < 0.7 else -1 for _ in range(PREDICTIONS)]
    # Objects and their predictions move alike, as they have the same generator.
    objects = [draw(it, np.random.default_rng([seed, i])) for i, it in enumerate(blobs)]
    tracks = [
        (i, draw(near(blobs[i], rng), np.random.default_rng([seed, i])) if i >= 0 else draw(blob(rng), rng))
        for i in shown
    ]
    return objects, tracks


def make(videos: list, categories: int, labels: int, seed: int = 0) -> tuple[GroundTruth, list[PredictedTrack]]:  # type: ignore[type-arg]
    """Gives objects and predictions categories; `labels` predictions have the same masks."""
    rng = np.random.default_rng(seed)
    tracks, predictions = [], []
    for video, (objects, found) in enumerate(videos, start=1):
        present = rng.integers(1, categories + 1, 3)  # a video shows few kinds of things
        kinds = rng.choice(present, len(objects))
        for masks, kind in zip(objects, kinds, strict=True):
            areas = tuple(None if m is None else float(coco.area({"size": m[:2], "counts": m.counts})) for m in masks)
            number = len(tracks) + 1
            tracks.append(
                AnnotatedTrack(id=number, video_id=video, category_id=int(kind), masks=masks, areas=areas, crowd=False)
            )
        for i, masks in found[: PREDICTIONS // labels]:
            right = int(kinds[i]) if i >= 0 and rng.random() < 0.7 else int(rng.choice(present))
            others = rng.choice(np.arange(1, categories + 1), labels - 1, replace=False).tolist()
            for kind in [right, *others]:
                score = float(rng.random() * (1 if i >= 0 and kind == kinds[i] else 0.6))
                predictions.append(PredictedTrack(video_id=video, category_id=kind, score=score, masks=masks))
    ground_truth = GroundTruth(
        path="made up",
        sha256="",
        videos=tuple(AnnotatedVideo(id=i + 1, height=HEIGHT, width=WIDTH, length=FRAMES) for i in range(len(videos))),
        categories=tuple(Category(id=i + 1, name=f"{i + 1}") for i in range(categories)),
        tracks=tuple(tracks),
    )
    return ground_truth, predictions


reading = 0.0  # CPU seconds for reading run lengths


def timed_read(masks: Sequence[Mask | None]) -> run_lengths.RunLengths:
    global reading
    start = time.process_time()
    runs = read(masks)
    reading += time.process_time() - start
    return runs


read, run_lengths.read = run_lengths.read, timed_read


def timed(run: Callable[[], dict[str, float]]) -> tuple[float, float, float, float, dict[str, float]]:
    """Wall and CPU seconds, those for reading run lengths, mebibytes by which a process grew, and the numbers.

    In a child that keeps nothing.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, cpu = time.perf_counter(), time.process_time()
        numbers = run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        shown = {name: numbers[name] for name in NAMES}
        os.write(write, repr((wall, cpu, reading, grown / 1024, shown)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        answer = file.read()
    os.waitpid(child, 0)
    wall, cpu, read_s, grown, numbers = eval(answer)  # noqa: S307 - written above
    return wall, cpu, read_s, grown, numbers


def race(name: str, ground_truth: GroundTruth, predictions: list[PredictedTrack], rules: ApRules) -> None:
    runs = {
        "official method": lambda: plain_ap(ground_truth, predictions, rules),
        "ours": lambda: video_ap(ground_truth, predictions, rules),
        "ours, 2 threads": lambda: video_ap(ground_truth, predictions, rules, threads=2),
    }
    first: tuple[float, float, dict[str, float]] | None = None
    for who, run in runs.items():
        wall, cpu, read_s, grown, numbers = timed(run)
        first = first or (wall, cpu, numbers)
        difference = max(abs(numbers[n] - first[2][n]) for n in numbers)
        print(
            f"{name:<34}{who:<17}wall {wall:>6.2f} s{first[0] / wall:>6.1f} ×"
            f"   CPU {cpu:>6.2f} s{first[1] / cpu:>6.1f} ×, {first[1] / (cpu - read_s):>5.1f} × but for reading"
            f"{grown:>6.0f} MiB"
            f"   AP {numbers['AP']:.4f}   largest difference {difference:.0e}",
            flush=True,
        )


def compile_kernels() -> None:
    """What a fresh installation does once, and every process after it in a few hundredths of a second."""
    start = time.perf_counter()
    runs = read([Mask(2, 3, b"06")])
    frames, none = np.array([[0, 0, 1]]), np.array([-1])
    compare_tubes(runs, runs, frames, np.zeros(1), none, np.zeros(0, bool))
    print(f"kernels compiled, or loaded if that has been done before: {time.perf_counter() - start:.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=300)
    count = parser.parse_args().videos
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        videos = list(pool.map(draw_video, range(-(-count // REPEATS)), chunksize=4)) * REPEATS
    masks = [
        m for objects, tracks in videos for its in [*objects, *(t for _, t in tracks)] for m in its if m is not None
    ]
    print(f"{len(videos)} videos, {len(masks)} masks of {np.mean([len(m.counts) for m in masks]):.0f} characters")
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before", flush=True)
    compile_kernels()
    for categories in (40, 1000):
        race(f"{categories} categories", *make(videos, categories, labels=1), YTVIS)
        race(f"{categories} categories, 4 labels a track", *make(videos, categories, labels=4), YTVIS)
    race("no categories, a fifth of them", *make(videos[: len(videos) // 5], 1, labels=1), UVO)
    print(f"load {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
