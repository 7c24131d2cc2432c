"""YOLO: one text file per frame with a polygon per line, as Ultralytics trains segmentation with it."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Int64
from pycocotools import mask as coco_mask

from pipelines.archive.formats.format import Target
from pipelines.archive.formats.outlines import polygon
from pipelines.archive.formats.video_labels import Row, VideoLabels, box

HOLES = "holes filled"
PARTS = "parts of a mask joined by a line"
"""What is lost of a mask that is no simple polygon."""

_CENTRE = 0.25
"""From a pixel's index to its coordinate: readers who cut and readers who round get the index back."""

_HEAD = "# Images: see images.txt, which lists those that are labelled. Keep some of them from training for val.\n"


def write_yolo(videos: Iterable[VideoLabels], target: Target) -> None:
    """Writes labels/VIDEO_ID/FRAME.txt for each frame with masks, images.txt with their images, and data.yaml.

    A frame that nobody looked at is not in images.txt, so that Ultralytics does not take it for an empty one.
    """
    with target.storage.write("images.txt") as images:
        for video in videos:
            images.writelines(f"./images/{video.image(frame)}\n".encode() for frame in video.masks_of_frames())
            with tempfile.TemporaryDirectory(prefix="openvis-export-") as folder:
                _write_frames(video, target, Path(folder))
                target.storage.put_folder(Path(folder), f"labels/{video.row['video_id']}")
    names = {number - 1: name for name, number in target.categories.items()}
    about = yaml.safe_dump({"train": "images.txt", "val": "images.txt", "names": names}, allow_unicode=True)
    with target.storage.write("data.yaml") as file:
        file.write((_HEAD + about).encode())


def _write_frames(video: VideoLabels, target: Target, folder: Path) -> None:
    joined, filled = set[int](), set[int]()
    for frame, masks in video.masks_of_frames().items():
        lines = []
        for mask in masks:
            track = mask["track_id"]
            corners, parts, holes = _polygon(mask)
            if parts > 1:
                joined.add(track)
            if holes:
                filled.add(track)
            category = target.category_number(video.tracks[track]["category"]) - 1
            lines.append(_line(category, corners, video.row["width"], video.row["height"]))
        (folder / f"{frame:06d}.txt").write_text("".join(lines))
    target.losses.add(PARTS, video, sorted(joined))
    target.losses.add(HOLES, video, sorted(filled))


def _polygon(mask: Row) -> tuple[Int64[np.ndarray, "n 2"], int, bool]:
    left, top, width, height = box(mask)
    inside = coco_mask.decode(mask["rle"])[top : top + height, left : left + width]
    corners, parts, holes = polygon(inside.astype(bool))
    return corners + np.array([left, top]), parts, holes


def _line(category: int, corners: Int64[np.ndarray, "n 2"], width: int, height: int) -> str:
    """Returns a line with at least three corners: Ultralytics takes fewer for a box."""
    corners = np.concatenate([corners, np.repeat(corners[-1:], max(0, 3 - len(corners)), axis=0)])
    shares = (corners + _CENTRE) / (width, height)
    return " ".join([str(category), *(f"{share:.6f}" for share in shares.ravel())]) + "\n"
