"""What a format of annotations is: a writer, and the files that it writes."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from pipelines.archive.formats.video_labels import VideoLabels
from pipelines.storage.files import Storage

_NAMED = 3
"""Tracks that a loss names; of the others it says how many."""


class Losses:
    """What a format cannot hold, and of which tracks."""

    def __init__(self) -> None:
        self._named: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, what: str, video: VideoLabels, tracks: Iterable[int]) -> None:
        """Adds tracks of a video; a track is given once for each loss."""
        for track in tracks:
            named = self._named.setdefault(what, [])
            self._counts[what] = self._counts.get(what, 0) + 1
            if len(named) < _NAMED:
                named.append(f"{video.row['video_id']}/{track}")

    def lines(self) -> tuple[str, ...]:
        """Returns a text for each loss, such as `holes filled: 2 tracks (a/0, b/7)`."""
        return tuple(self._line(what, count) for what, count in self._counts.items())

    def _line(self, what: str, count: int) -> str:
        named = ", ".join(self._named[what] + ["…"] * (count > _NAMED))
        return f"{what}: {count} track{'s' * (count != 1)} ({named})"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a writer writes to.

    Attributes:
        storage: the output folder.
        categories: number of each category, from 1 on.
        losses: what the writer could not keep.
    """

    storage: Storage
    categories: dict[str, int]
    losses: Losses = field(default_factory=Losses)

    def category_number(self, name: str) -> int:
        """Returns a category's number; adds a category that appeared since, in a video that was labelled again."""
        return self.categories.setdefault(name, len(self.categories) + 1)


class Writer(Protocol):
    """Writes annotations."""

    def __call__(self, videos: Iterable[VideoLabels], target: Target, /) -> None:
        """Writes videos, each with a track unless the format is `federated`.

        Goes through them once, so that one is in memory at a time.

        Raises:
            ValueError: the format needs a package that is not installed; names it.
            OSError: the storage cannot be written to.
        """


@dataclass(frozen=True)
class Format:
    """A format of annotations.

    Attributes:
        write: its writer.
        files_of_video: regular expressions of the paths of files that belong to one video, whose id is the group. Those
            of an earlier export are removed if their video has no tracks now.
        federated: whether it holds videos without tracks of which categories are known to be absent.
        images: folder of the images of frames, with a slash at its end; empty for the output itself.
    """

    write: Writer
    files_of_video: tuple[str, ...] = ()
    federated: bool = False
    images: str = ""
