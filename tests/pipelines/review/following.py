"""A labelled archive in which labelling has found one of two objects of a real video, and how it was labelled."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openvis_model.options import VideoTrackerConfig
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name
from tests.pipelines.following.videos import FPS, FRAMES, Scene, crossing
from tests.pipelines.review.archives import put_video

STRIDE = 4
SETTINGS: dict[str, Any] = {
    "fps": None,
    "stride": STRIDE,
    "tracker": asdict(VideoTrackerConfig()),
    "shots": "cuts",
    "precision": "float32",
    "vocabulary": "names.txt",
}


def write_labelled(folder: Path) -> tuple[Results, Scene]:
    """Writes the video and `labels`: a moon that is in every fourth frame but the last two of these."""
    scene = crossing(folder / "crossing.mp4")
    results = Results(Storage(str(folder / "labels")))
    times = [frame / FPS for frame in range(FRAMES)]
    put_video(
        results, part_name(1, 1), "crossing", str(scene.path), {1: ("blue dotted moon", 0.8, range(0, 16, 4))}, times
    )
    write_report(results.storage)
    return results, scene


def write_report(storage: Storage, name: str = "000001-00000000", **config: Any) -> None:
    """Writes what a run says of the labels that `put_video` makes."""
    with storage.write(f"runs/{name}.json") as file:
        file.write(json.dumps({"id": name, "config_fingerprint": "c", "config": SETTINGS | config}).encode())
