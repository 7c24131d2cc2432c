"""COCO: one image per frame, one annotation per mask."""

from collections.abc import Iterable
from itertools import count

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


def write_coco(videos: Iterable[VideoLabels], target: Target) -> None:
    """Writes an image for each frame with masks and an annotation for each mask.

    `track_id` links a track's masks; CVAT and datumaro read it from `attributes`.
    """
    with json_lists(target.storage, ANNOTATIONS) as add:
        _add_videos(videos, target, add)
        add_categories(target.categories, add)


def _add_videos(videos: Iterable[VideoLabels], target: Target, add: Add) -> None:
    images, annotations = count(1), count(1)
    for video in videos:
        known = federation(video, target.categories)
        image_ids = dict(zip(video.frames, images, strict=False))
        for frame, image in image_ids.items():
            names = {"id": image, "file_name": video.image(frame), "video_id": video.row["video_id"], "frame": frame}
            add("images", names | {"width": video.row["width"], "height": video.row["height"]} | known)
        for mask in video.masks:
            row = video.tracks[mask["track_id"]]
            ids = {
                "id": next(annotations),
                "image_id": image_ids[mask["frame"]],
                "category_id": target.category_number(row["category"]),
            }
            shape = {"segmentation": mask["rle"], "bbox": box(mask), "area": mask["area"], "iscrowd": 0}
            track = {"track_id": mask["track_id"], "attributes": {"track_id": mask["track_id"]}}
            add("annotations", ids | shape | track | {"score": row["score"]})
