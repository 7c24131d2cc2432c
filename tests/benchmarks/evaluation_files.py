"""`python -m tests.benchmarks.evaluation_files`: the scoring command against the official method, from the same files.

Both are fresh processes, from the start of Python to its end. The data are those of `tests.benchmarks.evaluation`, with
40 categories. Our command also analyses errors, which the official tools do not.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pipelines.datasets.annotations import AnnotatedTrack, AnnotatedVideo, Category, GroundTruth, Mask, PredictedTrack
from pipelines.metrics.rules import YTVIS
from tests.reference_evaluation import plain_ap


def write(folder: Path, videos: int) -> tuple[Path, Path]:
    """Writes a ground truth and predictions; each drawn video comes four times, with other labels and scores."""
    from pipelines.datasets.ytvis import write_predictions
    from tests.benchmarks.evaluation import draw_video, make
    from tests.reference_evaluation import to_coco

    truth, predictions = make([draw_video(seed) for seed in range(-(-videos // 4))] * 4, categories=40, labels=1)
    annotations = [
        {"id": track.id, "video_id": track.video_id, "category_id": track.category_id, "iscrowd": 0}
        | {"areas": track.areas, "segmentations": [(rle := to_coco(mask)) and plain(rle) for mask in track.masks]}
        for track in truth.tracks
    ]
    sizes = [{"id": v.id, "height": v.height, "width": v.width, "length": v.length} for v in truth.videos]
    kinds = [{"id": category.id, "name": category.name} for category in truth.categories]
    files = folder / "truth.json", folder / "predictions.json"
    files[0].write_text(json.dumps({"videos": sizes, "categories": kinds, "annotations": annotations}))
    write_predictions(files[1], predictions)
    return files


def plain(rle: dict[str, Any]) -> dict[str, Any]:
    return rle | {"counts": rle["counts"].decode()}


def official(truth: str, predictions: str) -> None:
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
    print(plain_ap(ground_truth, [PredictedTrack(score=entry["score"], **about(entry)) for entry in results], YTVIS))


def about(entry: dict[str, Any]) -> dict[str, Any]:
    masks = tuple(rle and Mask(*rle["size"], rle["counts"].encode()) for rle in entry["segmentations"])
    return {"video_id": entry["video_id"], "category_id": entry["category_id"], "masks": masks}


def measure(name: str, *arguments: str) -> None:
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    wall, cpu = time.perf_counter() - start, used.ru_utime + used.ru_stime
    print(f"{name:<17}wall {wall:>6.2f} s   CPU {cpu:>6.2f} s{used.ru_maxrss / 1024:>6.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=300)
    parser.add_argument("--official", nargs=2, metavar=("TRUTH", "PREDICTIONS"), help="only score these files")
    options = parser.parse_args()
    if options.official:
        official(*options.official)
        return
    with tempfile.TemporaryDirectory() as folder:
        truth, predictions = map(str, write(Path(folder), options.videos))
        print(f"{os.path.getsize(predictions) / 1e6:.0f} MB of predictions, load {os.getloadavg()[0]:.1f}", flush=True)
        files = ("--protocol", "ytvis", "--ground_truth", truth, "--predictions", predictions)
        for _ in range(2):  # the first time, a fresh installation compiles its kernels
            measure("official method", "tests.benchmarks.evaluation_files", "--official", truth, predictions)
            measure("ours", "jobs.evaluate", "score", *files)


if __name__ == "__main__":
    main()
