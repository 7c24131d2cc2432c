"""Small data sets of hand-made images: coloured rectangles that move over a grey background."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from tests.pipelines.video.clips import write_image

HEIGHT, WIDTH = 64, 96
RED, BLUE, GREY = (220, 30, 30), (30, 40, 220), (128, 128, 128)
CATEGORIES = [
    {"id": 7, "name": "red_box", "partition": 1},
    {"id": 9, "name": "odd thing", "partition": 3},
    {"id": 11, "name": "blue_box", "partition": 0},
]


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    """A mask, bool [HEIGHT, WIDTH]."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def paint(red: np.ndarray, blue: np.ndarray) -> np.ndarray:
    frame = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    frame[:] = GREY
    frame[red], frame[blue] = RED, BLUE
    return frame


def scene(t: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks in frame t: a red box that goes right by 4 pixels a frame, and a blue one in frames 1 and 2 alone."""
    return box(8, 4 + 4 * t, 20, 16), box(40, 60, 16, 20) if t in (1, 2) else np.zeros((HEIGHT, WIDTH), bool)


def video_document(videos: int = 2, frames: int = 6) -> dict[str, Any]:
    """Annotations in the format of YouTube-VIS: in each video track 2 v - 1 is red, track 2 v is blue."""
    annotations = []
    for video in range(1, videos + 1):
        for kind, category in enumerate((7, 11)):
            masks = [scene(t)[kind] for t in range(frames)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "video_id": video,
                    "category_id": category,
                    "iscrowd": 0,
                    "segmentations": [run_lengths(mask) if mask.any() else None for mask in masks],
                    "areas": [int(mask.sum()) if mask.any() else None for mask in masks],
                }
            )
    return {
        "videos": [
            {
                "id": video,
                "height": HEIGHT,
                "width": WIDTH,
                "length": frames,
                "file_names": [f"v{video}/{t:03}.png" for t in range(frames)],
            }
            for video in range(1, videos + 1)
        ],
        "categories": CATEGORIES,
        "annotations": annotations,
    }


def write_videos(folder: Path, videos: int = 2, frames: int = 6) -> None:
    """The frames that `video_document` annotates, as folders of images."""
    for video in range(1, videos + 1):
        (folder / f"v{video}").mkdir(parents=True)
        for t in range(frames):
            write_image(folder / f"v{video}" / f"{t:03}.png", paint(*scene(t)))


def image_document() -> dict[str, Any]:
    """Annotations in the format of COCO: polygons, plain and compressed run lengths, and a crowd."""
    red, blue = box(8, 4, 20, 16), box(40, 60, 16, 20)
    crowd = coco.decode(run_lengths(box(0, 30, 4, 4)) | {"counts": run_lengths(box(0, 30, 4, 4))["counts"].encode()})
    changes = np.flatnonzero(np.diff(crowd.ravel("F"), prepend=0, append=2))
    plain = np.diff(changes, prepend=0).tolist()
    annotations: list[dict[str, Any]] = [
        {"id": 1, "image_id": 5, "category_id": 7, "segmentation": [[4, 8, 20, 8, 20, 28, 4, 28]]},
        {"id": 2, "image_id": 5, "category_id": 11, "segmentation": run_lengths(blue)},
        {"id": 3, "image_id": 5, "category_id": 7, "segmentation": {"size": [HEIGHT, WIDTH], "counts": plain}},
        {"id": 4, "image_id": 6, "category_id": 7, "segmentation": run_lengths(red)},
    ]
    for annotation in annotations:
        annotation |= {"iscrowd": int(annotation["id"] == 3), "area": 320.0}
    return {
        "images": [{"id": i, "height": HEIGHT, "width": WIDTH, "file_name": f"{i:04}.png"} for i in (5, 6)],
        "categories": CATEGORIES,
        "annotations": annotations,
    }


def lvis_document() -> dict[str, Any]:
    """The images of `image_document` in a folder train2017, annotated as LVIS publishes its files.

    Image 5 has red and blue boxes, of which not every blue one is annotated, and no odd thing. Of image 6 only red
    boxes are known.
    """
    document = image_document()
    known = {5: {"neg_category_ids": [9], "not_exhaustive_category_ids": [11]}}
    nothing_else: dict[str, Any] = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    for image in document["images"]:
        name = image.pop("file_name")
        image |= {"coco_url": f"http://images.cocodataset.org/train2017/{name}", "license": 4}
        image |= known.get(image["id"], nothing_else)
    document["categories"] = [
        {
            "id": category["id"],
            "name": category["name"],
            "synset": f"{category['name']}.n.01",
            "synonyms": [category["name"], "oblong_(solid)"],
            "def": "a thing of a colour",
            "frequency": "rcf"[number],
            "image_count": 1,
            "instance_count": 1,
        }
        for number, category in enumerate(CATEGORIES)
    ]
    document["annotations"] = [each for each in document["annotations"] if not each.pop("iscrowd")]
    return document


def write_images(folder: Path) -> None:
    """The images that `image_document` annotates."""
    red, blue, nothing = box(8, 4, 20, 16), box(40, 60, 16, 20), np.zeros((HEIGHT, WIDTH), bool)
    folder.mkdir(parents=True, exist_ok=True)
    write_image(folder / "0005.png", paint(red, blue))
    write_image(folder / "0006.png", paint(red, nothing))


def write_json(path: Path, document: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return str(path)
