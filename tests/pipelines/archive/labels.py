"""Parts of an output, written by hand."""

from typing import Any

from pipelines.archive.parts import Rows
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results


def row(table: str, **values: Any) -> dict[str, Any]:
    """A row of nulls, but for the id `v` and what is given."""
    return dict.fromkeys(SCHEMAS[table].names) | {"video_id": "v"} | values


def part_name(run: int, part: int = 0) -> str:
    """As those of a run."""
    return f"{run:06d}-{run:08x}-{part:012x}"


def put_part(results: Results, name: str, *video_ids: str, category: str = "star", **video: Any) -> None:
    """Puts a part with videos in place, each with a track in two frames; those that failed have none."""
    rows = Rows()
    for video_id in video_ids:
        if video.get("status", "ok") == "ok":
            masks = [(0, "06"), (1, "6")]
            for frame, counts in masks:
                rle = {"size": [2, 3], "counts": counts}
                box = {"x": 0, "y": 0, "width": 3, "height": 2, "area": 6}
                rows.add("masks", [row("masks", video_id=video_id, track_id=1, frame=frame, rle=rle, **box)])
            top = [{"category": category, "score": 1.0}]
            rows.add("tracks", [row("tracks", video_id=video_id, track_id=1, category=category, score=1.0, top=top)])
        rows.add("videos", [row("videos", video_id=video_id, **({"status": "ok", "tracks": 1} | video))])
    rows.put(results.storage, name)


def put_tracks(results: Results, part: str, model: str, *tracks: dict[str, Any]) -> None:
    """Puts a part with tracks in place, and with the videos that they are of; a model labelled them."""
    rows = Rows()
    for track in tracks:
        rows.add("tracks", [row("tracks", **track)])
    for video_id in dict.fromkeys(track["video_id"] for track in tracks):
        rows.add("videos", [row("videos", video_id=video_id, status="ok", model_fingerprint=model)])
    rows.put(results.storage, part)
