"""`python -m tests.benchmarks.evaluation_files`: the scoring command against the official method, from the same files.

Both are fresh processes, from the start of Python to its end. The data are those of `tests.benchmarks.evaluation`: 40
categories, for LV-VIS 1,000, for UVO one. The official method of YouTube-VIS, LV-VIS and UVO is restated by
`tests.reference_evaluation`. That of BURST is TrackEval, which an interpreter with that package runs:

    python -m venv other && other/bin/pip install trackeval
    python -m tests.benchmarks.evaluation_files --trackeval other/bin/python

It computes one of the tasks that our command computes for BURST, the class-guided one. Our command also analyses
errors, which the official tools do not.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as coco

from pipelines.datasets.annotations import AnnotatedTrack, AnnotatedVideo, Category, GroundTruth, Mask, PredictedTrack
from pipelines.datasets.burst import MERGED, NOT_EVALUATED
from pipelines.evaluation.benchmark import TrackBenchmark
from pipelines.evaluation.benchmarks import BENCHMARKS
from tests.reference_evaluation import plain_ap, to_coco

CATEGORIES = {"ytvis": 40, "lvvis": 1000, "uvo": 1, "burst": 40}
LVIS = [number for number in range(1, 1231) if number not in NOT_EVALUATED and number not in MERGED]

TRACKEVAL = """
import sys, trackeval
folder = sys.argv[1]
data = trackeval.datasets.BURST({"GT_FOLDER": folder, "TRACKERS_FOLDER": folder + "/trackers", "PRINT_CONFIG": False})
quiet = {"PRINT_CONFIG": False, "PLOT_CURVES": False, "OUTPUT_SUMMARY": False, "OUTPUT_DETAILED": False}
metrics = [trackeval.metrics.HOTA(), trackeval.metrics.TrackMAP({"PRINT_CONFIG": False})]
trackeval.Evaluator({"USE_PARALLEL": False, **quiet}).evaluate([data], metrics)
"""


def write(folder: Path, protocol: str, drawn: list[Any]) -> tuple[str, str]:
    """Writes a ground truth and predictions."""
    from pipelines.datasets.ytvis import write_predictions
    from tests.benchmarks.evaluation import make

    truth, predictions = make(drawn, categories=CATEGORIES[protocol], labels=1)
    if protocol == "burst":
        return write_burst(folder, truth, predictions)
    annotations = [
        {"id": track.id, "video_id": track.video_id, "category_id": track.category_id, "iscrowd": 0}
        | {"areas": track.areas, "segmentations": [(rle := to_coco(mask)) and plain(rle) for mask in track.masks]}
        for track in truth.tracks
    ]
    sizes = [{"id": v.id, "height": v.height, "width": v.width, "length": v.length} for v in truth.videos]
    kinds = [{"id": category.id, "name": category.name, "partition": category.id % 4} for category in truth.categories]
    files = folder / "truth.json", folder / "predictions.json"
    files[0].write_text(json.dumps({"videos": sizes, "categories": kinds, "annotations": annotations}))
    write_predictions(files[1], predictions)
    return str(files[0]), str(files[1])


def plain(rle: dict[str, Any]) -> dict[str, Any]:
    return rle | {"counts": rle["counts"].decode()}


def write_burst(folder: Path, truth: GroundTruth, predictions: Sequence[PredictedTrack]) -> tuple[str, str]:
    """Where TrackEval looks for them."""
    files = folder / "all_classes.json", folder / "trackers" / "ours" / "data" / "predictions.json"
    files[1].parent.mkdir(parents=True)
    for file, tracks in zip(files, (truth.tracks, predictions), strict=True):
        sequences = [sequence(video, [each for each in tracks if each.video_id == video.id]) for video in truth.videos]
        file.write_text(json.dumps({"split": "val", "categories": [], "sequences": sequences}))
    return str(files[0]), str(files[1])


def sequence(video: AnnotatedVideo, tracks: Iterable[AnnotatedTrack | PredictedTrack]) -> dict[str, Any]:
    """A seventh of the categories is known to be absent, where it is; for another seventh, annotations lack objects."""
    assert video.length is not None
    frames: list[dict[str, Any]] = [{} for _ in range(video.length)]
    categories = {}
    for number, track in enumerate(tracks, start=1):
        categories[str(number)] = LVIS[track.category_id - 1]
        score = {"score": track.score} if isinstance(track, PredictedTrack) else {"is_gt": True}
        for frame, mask in zip(frames, track.masks, strict=True):
            if mask is not None and coco.area(to_coco(mask)):  # TrackEval would count a mask without pixels
                frame[str(number)] = {"rle": mask.counts.decode(), **score}
    paths = [f"frame{frame:04}.jpg" for frame in range(video.length)]
    return {
        "id": video.id,
        "dataset": "AVA",
        "seq_name": f"video{video.id:05}",
        "width": video.width,
        "height": video.height,
        "fps": 30,
        "all_image_paths": paths,
        "annotated_image_paths": paths,
        "neg_category_ids": LVIS[video.id % 7 : 40 : 7],
        "not_exhaustive_category_ids": LVIS[(video.id + 1) % 7 : 40 : 7],
        "track_category_ids": categories,
        "segmentations": frames,
    }


def official(protocol: str, truth: str, predictions: str) -> None:
    """Scores files as the official tool does, without checks."""
    document, results = json.loads(Path(truth).read_text()), json.loads(Path(predictions).read_text())
    tracks = tuple(
        AnnotatedTrack(id=entry["id"], areas=tuple(entry["areas"]), **about(entry)) for entry in document["annotations"]
    )
    ground_truth = GroundTruth(
        path=truth,
        sha256="",
        videos=tuple(AnnotatedVideo(**video) for video in document["videos"]),
        categories=tuple(Category(**category) for category in document["categories"]),
        tracks=tracks,
    )
    benchmark = BENCHMARKS[protocol]  # type: ignore[index]
    assert isinstance(benchmark, TrackBenchmark)
    found = [PredictedTrack(score=entry["score"], **about(entry)) for entry in results]
    print(plain_ap(ground_truth, found, benchmark.rules))


def about(entry: dict[str, Any]) -> dict[str, Any]:
    masks = tuple(rle and Mask(*rle["size"], rle["counts"].encode()) for rle in entry["segmentations"])
    return {"video_id": entry["video_id"], "category_id": entry["category_id"], "masks": masks}


def measure(name: str, command: Sequence[str], before: float | None = None) -> float:
    """Prints what a command takes; returns its CPU seconds."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    wall, cpu = time.perf_counter() - start, used.ru_utime + used.ru_stime
    ratio = f"{before / cpu:>6.1f} ×" if before else " " * 8
    print(f"{name:<24}wall {wall:>6.2f} s   CPU {cpu:>6.2f} s{ratio}{used.ru_maxrss / 1024:>6.0f} MiB", flush=True)
    return cpu


def race(protocol: str, drawn: list[Any], trackeval: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        truth, predictions = write(Path(folder), protocol, drawn)
        size = os.path.getsize(predictions) / 1e6
        print(f"{protocol}: {size:.0f} MB of predictions, load {os.getloadavg()[0]:.1f}", flush=True)
        ours = [sys.executable, "-m", "jobs.evaluate", "score", "--protocol", protocol]
        ours += ["--ground_truth", truth, "--predictions", predictions]
        theirs = [sys.executable, "-m", "tests.benchmarks.evaluation_files", "--official", protocol, truth, predictions]
        if protocol == "burst":
            theirs = [trackeval, "-c", TRACKEVAL, folder] if trackeval else []
        for _ in range(2):  # the first time, a fresh installation compiles its kernels
            cpu = measure(f"{protocol}, official method", theirs) if theirs else None
            measure(f"{protocol}, ours", ours, cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=300)
    parser.add_argument("--protocols", nargs="+", choices=CATEGORIES, default=list(CATEGORIES))
    parser.add_argument("--trackeval", metavar="PYTHON", help="interpreter that has TrackEval")
    parser.add_argument("--official", nargs=3, metavar=("PROTOCOL", "TRUTH", "PREDICTIONS"), help="only score files")
    options = parser.parse_args()
    if options.official:
        official(*options.official)
        return
    from tests.benchmarks.evaluation import draw_video

    # Each drawn video comes four times, with other labels and scores: drawing takes longer than scoring.
    drawn = [draw_video(seed) for seed in range(-(-options.videos // 4))] * 4
    for protocol in options.protocols:
        race(protocol, drawn, options.trackeval)


if __name__ == "__main__":
    main()
