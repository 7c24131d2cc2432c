"""The labels of one video, as the writers of annotation formats take them, and helpers that these writers share."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from pipelines.storage.files import Storage

Row = Mapping[str, Any]

Add = Callable[[str, Row], None]
"""Adds an item to a list of a JSON object."""

ANNOTATIONS = "annotations.json"
"""Name of the file of a format that holds all videos in one JSON object."""

BOXES_ONLY = "boxes without masks"
"""The loss of a track whose masks a format cannot hold."""

OVERLAPS = "pixels of a better track left out"
"""The loss of a track whose masks overlap others, where a format has one object for a pixel."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoLabels:
    """The labels of one video.

    Attributes:
        row: its row of the `videos` table.
        tracks: rows of the `tracks` table, by track id.
        masks: rows of the `masks` table, sorted by frame.
        frames: indices of the frames that have masks, or had masks that were rejected.
        federation: of labels of which only a part is kept, `neg_category_ids` and `not_exhaustive_category_ids` as LVIS
            has them, but as names: categories that were sought and are not in the video, and those of which not every
            object is kept. None if all labels are.
    """

    row: Row
    tracks: dict[int, Row]
    masks: list[Row]
    frames: list[int]
    federation: Mapping[str, Sequence[str]] | None = None

    def masks_of_tracks(self) -> dict[int, list[Row]]:
        """Returns the masks of each track, by track id."""
        masks: dict[int, list[Row]] = {track: [] for track in self.tracks}
        for mask in self.masks:
            masks[mask["track_id"]].append(mask)
        return masks

    def masks_of_frames(self) -> dict[int, list[Row]]:
        """Returns the masks of each frame that has any, those of the track with the best score first."""
        masks: dict[int, list[Row]] = {}
        for mask in self.masks:
            masks.setdefault(mask["frame"], []).append(mask)
        for of_frame in masks.values():
            of_frame.sort(key=lambda mask: (-self.tracks[mask["track_id"]]["score"], mask["track_id"]))
        return masks

    def image(self, frame: int) -> str:
        """Returns the name of a frame's image file."""
        return f"{self.row['video_id']}/{frame:06d}.jpg"


@contextmanager
def json_lists(output: Storage, path: str) -> Iterator[Add]:
    """Yields a function that adds an item to a list of a JSON object; the object is written when the block ends."""
    with ExitStack() as files:
        lists: dict[str, BinaryIO] = {}

        def add(name: str, item: Row) -> None:
            if name not in lists:
                lists[name] = files.enter_context(tempfile.TemporaryFile(prefix="openvis-export-"))
            else:
                lists[name].write(b",\n")
            lists[name].write(json.dumps(item, separators=(",", ":")).encode())

        yield add
        with output.write(path) as file:
            for number, (name, items) in enumerate(lists.items()):
                file.write(f'{"," if number else "{"}\n"{name}":[\n'.encode())
                items.seek(0)
                shutil.copyfileobj(items, file)
                file.write(b"]")
            file.write(b"}\n")


def federation(video: VideoLabels, categories: dict[str, int]) -> dict[str, list[int]]:
    """Returns what is known of the categories of a video, as ids; nothing if all of its labels are kept."""
    known = video.federation or {}
    return {key: [categories.setdefault(name, len(categories) + 1) for name in names] for key, names in known.items()}


def box(mask: Row) -> list[int]:
    """Returns left, top, width and height of a mask, pixels."""
    return [mask["x"], mask["y"], mask["width"], mask["height"]]


def add_categories(categories: Mapping[str, int], add: Add) -> None:
    """Adds the list of categories to a JSON object, after the videos: they may bring more."""
    for name, number in categories.items():
        add("categories", {"id": number, "name": name})
