"""YouTube-VIS: one annotation per track, with a mask per frame."""

from collections.abc import Iterable
from itertools import count
from typing import Any

from pipelines.archive.formats.video_labels import Add, VideoLabels, box, category_number, federation


def write_youtube_vis(videos: Iterable[VideoLabels], categories: dict[str, int], add: Add) -> None:
    """Writes an annotation per track, with an entry for each frame that has masks; `frames` lists these frames."""
    ids = count(1)
    for number, video in enumerate(videos, start=1):
        shape = {"width": video.row["width"], "height": video.row["height"], "length": len(video.frames)}
        names = {"video_id": video.row["video_id"], "uri": video.row["uri"], "frames": video.frames}
        files = {"file_names": [video.image(frame) for frame in video.frames]}
        add("videos", {"id": number} | shape | names | files | federation(video, categories))
        place = {frame: i for i, frame in enumerate(video.frames)}
        for track, masks in video.masks_of_tracks().items():
            row = video.tracks[track]
            entries: dict[str, list[Any]] = {name: [None] * len(place) for name in ("segmentations", "bboxes", "areas")}
            for mask in masks:
                at = place[mask["frame"]]
                for name, value in (("segmentations", mask["rle"]), ("bboxes", box(mask)), ("areas", mask["area"])):
                    entries[name][at] = value
            category = category_number(categories, row["category"])
            identity = {"id": next(ids), "video_id": number, "track_id": track, "category_id": category}
            add("annotations", identity | shape | {"score": row["score"], "iscrowd": 0} | entries)
