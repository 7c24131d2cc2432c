"""YouTube-VIS: one annotation per track, with a mask per frame."""

from collections.abc import Iterable
from itertools import count
from typing import Any

from pipelines.archive.formats.format import Target
from pipelines.archive.formats.video_labels import (
    ANNOTATIONS,
    Add,
    VideoLabels,
    add_categories,
    box,
    federation,
    json_lists,
)


def write_youtube_vis(videos: Iterable[VideoLabels], target: Target) -> None:
    """Writes an annotation per track, with an entry for each frame that has masks; `frames` lists these frames."""
    with json_lists(target.storage, ANNOTATIONS) as add:
        _add_videos(videos, target, add)
        add_categories(target.categories, add)


def _add_videos(videos: Iterable[VideoLabels], target: Target, add: Add) -> None:
    ids = count(1)
    for number, video in enumerate(videos, start=1):
        shape = {"width": video.row["width"], "height": video.row["height"], "length": len(video.frames)}
        names = {"video_id": video.row["video_id"], "uri": video.row["uri"], "frames": video.frames}
        files = {"file_names": [video.image(frame) for frame in video.frames]}
        add("videos", {"id": number} | shape | names | files | federation(video, target.categories))
        place = {frame: i for i, frame in enumerate(video.frames)}
        for track, masks in video.masks_of_tracks().items():
            row = video.tracks[track]
            entries: dict[str, list[Any]] = {name: [None] * len(place) for name in ("segmentations", "bboxes", "areas")}
            for mask in masks:
                at = place[mask["frame"]]
                for name, value in (("segmentations", mask["rle"]), ("bboxes", box(mask)), ("areas", mask["area"])):
                    entries[name][at] = value
            category = target.category_number(row["category"])
            identity = {"id": next(ids), "video_id": number, "track_id": track, "category_id": category}
            add("annotations", identity | shape | {"score": row["score"], "iscrowd": 0} | entries)
