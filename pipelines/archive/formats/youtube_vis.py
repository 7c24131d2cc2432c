"""YouTube-VIS: a track per annotation, with a mask per frame."""

from collections.abc import Iterable
from itertools import count
from typing import Any

from pipelines.archive.formats.video_labels import Add, VideoLabels, box, category_number


def write_youtube_vis(videos: Iterable[VideoLabels], categories: dict[str, int], add: Add) -> None:
    """An annotation is a track, with an entry per frame of the video that has anything; `frames` are their indices."""
    ids = count(1)
    for number, video in enumerate(videos, start=1):
        about = {"id": number, "width": video.row["width"], "height": video.row["height"], "length": len(video.frames)}
        names = {"video_id": video.row["video_id"], "uri": video.row["uri"], "frames": video.frames}
        add("videos", about | names | {"file_names": [video.image(frame) for frame in video.frames]})
        place = {frame: i for i, frame in enumerate(video.frames)}
        for track, masks in video.masks_of_tracks().items():
            row = video.tracks[track]
            its: dict[str, list[Any]] = {name: [None] * len(place) for name in ("segmentations", "bboxes", "areas")}
            for mask in masks:
                at = place[mask["frame"]]
                its["segmentations"][at], its["bboxes"][at], its["areas"][at] = mask["rle"], box(mask), mask["area"]
            category = category_number(categories, row["category"])
            about = {"id": next(ids), "video_id": number, "track_id": track, "category_id": category}
            add("annotations", about | {"score": row["score"], "iscrowd": 0} | its)
