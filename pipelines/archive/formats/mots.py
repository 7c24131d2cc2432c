"""MOTS: one text file per video with a mask per line, as TrackEval's reader of the MOTS Challenge takes it."""

from collections.abc import Iterable, Iterator

import numpy as np
from pycocotools import mask as coco_mask

from pipelines.archive.formats.format import Target
from pipelines.archive.formats.key_frames import frame_count
from pipelines.archive.formats.video_labels import OVERLAPS, Row, VideoLabels

_CLASSES = {"car": 1, "pedestrian": 2, "person": 2}
_RESERVED = 10
"""The highest number that MOTS gives a meaning: regions to ignore."""


def write_mots(videos: Iterable[VideoLabels], target: Target) -> None:
    """Writes a folder that is at once ground truth and a tracker's result: `data` holds a text file per video.

    A line is `frame id class_id height width rle`; frames begin at 1, ids are those of the tracks. Cars and people
    have the numbers that MOTS gives them; classes.txt lists all.
    """
    classes: dict[str, int] = {}
    with target.storage.write("seqmaps/MOTS-train.txt") as names:
        names.write(b"name\n")
        for video in videos:
            name = video.row["video_id"]
            names.write(f"{name}\n".encode())
            for track in video.tracks.values():
                classes[track["category"]] = _class_id(track["category"], target)
            with target.storage.write(f"{name}/seqinfo.ini") as file:
                file.write(_about(video).encode())
            with target.storage.write(f"data/{name}.txt") as file:
                file.writelines(f"{line}\n".encode() for line in _lines(video, classes, target))
    with target.storage.write("classes.txt") as file:
        file.writelines(f"{number} {name}\n".encode() for name, number in sorted(classes.items(), key=lambda c: c[1]))


def _class_id(category: str, target: Target) -> int:
    return _CLASSES.get(category) or _RESERVED + target.category_number(category)


def _about(video: VideoLabels) -> str:
    values = {
        "name": video.row["video_id"],
        "imDir": "img1",
        "frameRate": round(video.row["fps"]),
        "seqLength": frame_count(video),
        "imWidth": video.row["width"],
        "imHeight": video.row["height"],
        "imExt": ".jpg",
    }
    return "".join(["[Sequence]\n", *(f"{name}={value}\n" for name, value in values.items())])


def _lines(video: VideoLabels, classes: dict[str, int], target: Target) -> Iterator[str]:
    cut = set[int]()
    for frame, of_frame in video.masks_of_frames().items():
        for mask, rle in zip(of_frame, _apart([mask["rle"] for mask in of_frame]), strict=True):
            track = mask["track_id"]
            if rle != mask["rle"]:
                cut.add(track)
            if rle is not None:
                height, width = rle["size"]
                yield f"{frame + 1} {track} {classes[video.tracks[track]['category']]} {height} {width} {rle['counts']}"
    target.losses.add(OVERLAPS, video, sorted(cut))


def _apart(rles: list[Row]) -> Iterator[Row | None]:
    """Yields masks without the pixels of earlier ones, None for those of which nothing is left."""
    if coco_mask.area(coco_mask.merge(rles)) == sum(coco_mask.area(rles)):
        yield from rles
        return
    taken = np.zeros(rles[0]["size"], bool)
    for rle in rles:
        mask = coco_mask.decode(rle).astype(bool)
        if not (mask & taken).any():
            yield rle
        elif (mask & ~taken).any():
            encoded = coco_mask.encode(np.asfortranarray(mask & ~taken, dtype=np.uint8))
            yield {"size": encoded["size"], "counts": encoded["counts"].decode()}
        else:
            yield None
        taken |= mask
