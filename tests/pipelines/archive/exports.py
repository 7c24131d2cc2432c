from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from pipelines.archive.config import ExportConfig
from pipelines.archive.export import ExportSummary, export_annotations
from pipelines.archive.parts import Rows
from pipelines.archive.tables import Results
from tests.pipelines.archive.labels import row

HEIGHT, WIDTH = 6, 8


SEEN = {  # video → track → name, score, frames; every third frame was looked at
    "a": {0: ("star", 0.9, (0, 3, 6)), 1: ("ring & disc", 0.4, (3, 9))},
    "b-2": {0: ("star", 0.5, (0,)), 2: ("moon", 0.1, (3,))},
    "c": {},
}


def dense(track: int, frame: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[track : track + 2, frame // 3 : frame // 3 + 3] = 1
    return mask


def put(
    results: Results,
    name: str,
    videos: dict[str, Any],
    times: Sequence[float] | None = None,
    draw: Callable[[int, int], np.ndarray] = dense,
    **timing: Any,
) -> None:
    """Puts a part with videos in place; `times` are those of their frames, which are evenly spaced by default."""
    rows = Rows()
    about = {"status": "ok", "width": WIDTH, "height": HEIGHT, "fps": 10.0, "duration_s": 1.0, "expected_frames": 4}
    for video, tracks in videos.items():
        rows.add("videos", [row("videos", **({"video_id": video, "uri": f"/videos/{video}.mp4"} | about | timing))])
        for track, (category, score, frames) in tracks.items():
            own = {"video_id": video, "track_id": track}
            rows.add("tracks", [row("tracks", **own, category=category, score=score)])
            for frame in frames:
                rle = coco_mask.encode(np.asfortranarray(draw(track, frame)))
                x, y, width, height = (int(side) for side in coco_mask.toBbox(rle))
                box = {"x": x, "y": y, "width": width, "height": height, "area": int(coco_mask.area(rle))}
                rle["counts"] = rle["counts"].decode()
                time_s = times[frame] if times else frame / timing.get("fps", 10)
                rows.add("masks", [row("masks", **own, **box, frame=frame, time_s=time_s, rle=rle)])
    rows.put(results.storage, name)


def export(labels: str, output: Path, kind: Any, **options: Any) -> ExportSummary:
    return export_annotations(ExportConfig(labels=labels, output=str(output), format=kind, **options))
