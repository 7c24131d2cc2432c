"""COCO: an image per frame, a mask per annotation."""

from collections.abc import Iterable
from itertools import count

from pipelines.archive.formats.video_labels import Add, VideoLabels, box, category_number


def write_coco(videos: Iterable[VideoLabels], categories: dict[str, int], add: Add) -> None:
    """An image is a frame that has anything, an annotation a mask; `track_id` says which belong together."""
    images, annotations = count(1), count(1)
    for video in videos:
        image_ids = dict(zip(video.frames, images, strict=False))
        for frame, image in image_ids.items():
            about = {"id": image, "file_name": video.image(frame), "video_id": video.row["video_id"], "frame": frame}
            add("images", about | {"width": video.row["width"], "height": video.row["height"]})
        for mask in video.masks:
            row = video.tracks[mask["track_id"]]
            about = {
                "id": next(annotations),
                "image_id": image_ids[mask["frame"]],
                "category_id": category_number(categories, row["category"]),
            }
            what = {"segmentation": mask["rle"], "bbox": box(mask), "area": mask["area"], "iscrowd": 0}
            add("annotations", about | what | {"track_id": mask["track_id"], "score": row["score"]})
