"""The labels of one video as the writers of annotation formats take them, and what those writers share."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from pipelines.storage.files import Storage

Row = Mapping[str, Any]


Add = Callable[[str, Row], None]
"""Adds an item to a list of a JSON object."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoLabels:
    """A video and what was found in it.

    Attributes:
        row: of the `videos` table.
        tracks: rows of the `tracks` table, by track id.
        masks: rows of the `masks` table, sorted by frame.
        frames: indices of those frames in which something was found.
    """

    row: Row
    tracks: dict[int, Row]
    masks: list[Row]
    frames: list[int]

    def masks_of_tracks(self) -> dict[int, list[Row]]:
        """Masks of each track, by its id."""
        found: dict[int, list[Row]] = {track: [] for track in self.tracks}
        for mask in self.masks:
            found[mask["track_id"]].append(mask)
        return found

    def image(self, frame: int) -> str:
        """Name of a frame as an image file."""
        return f"{self.row['video_id']}/{frame:06d}.jpg"


@contextmanager
def json_lists(output: Storage, path: str) -> Iterator[Add]:
    """Gives a function that adds an item to a list of a JSON object, which is written at the end, a list at a time."""
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


def category_number(categories: dict[str, int], name: str) -> int:
    """That of a category; a new one if it came up since, in a video that was labelled anew meanwhile."""
    return categories.setdefault(name, len(categories) + 1)


def box(mask: Row) -> list[int]:
    """Left, top, width and height of a mask, pixels."""
    return [mask["x"], mask["y"], mask["width"], mask["height"]]
