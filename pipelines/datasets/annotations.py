"""What annotations and predictions of video instance segmentation hold, whatever file they are from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class Mask(NamedTuple):
    """One mask.

    Attributes:
        height: of its frame, pixels.
        width: of its frame, pixels.
        counts: COCO compressed run lengths.
    """

    height: int
    width: int
    counts: bytes


@dataclass(frozen=True, kw_only=True)
class Category:
    """A category; `partition` is that of LV-VIS: 0 and 1 are base categories, 2 and 3 novel ones."""

    id: int
    name: str
    partition: int | None = None


@dataclass(frozen=True, kw_only=True)
class AnnotatedVideo:
    """A video; `file_names` are those of its frames, `video` that of an encoded file with all of them, if there is one.

    Height and width in pixels, length in frames, fps in frames per second, None if the file does not say.
    """

    id: int
    height: int
    width: int
    length: int
    file_names: tuple[str, ...] = ()
    video: str | None = None
    fps: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class AnnotatedTrack:
    """An object of a video.

    Attributes:
        id: as in the file.
        video_id: the video.
        category_id: what it is.
        masks: one per frame of the video, None where it is absent.
        areas: one per frame in pixels, as the file states them; None where it states none.
        crowd: whether it is a group of objects.
    """

    id: int
    video_id: int
    category_id: int
    masks: tuple[Mask | None, ...]
    areas: tuple[float | None, ...]
    crowd: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictedTrack:
    """A prediction; `masks` are one per frame of the video, None where it is absent."""

    video_id: int
    category_id: int
    score: float
    masks: tuple[Mask | None, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundTruth:
    """A ground truth file.

    Attributes:
        path: the file.
        sha256: of its bytes.
        videos: in the order of the file.
        categories: in the order of the file.
        tracks: in the order of the file.
        warnings: what is odd about the file but was accepted, and how often.
    """

    path: str
    sha256: str
    videos: tuple[AnnotatedVideo, ...]
    categories: tuple[Category, ...]
    tracks: tuple[AnnotatedTrack, ...]
    warnings: Mapping[str, int] = field(default_factory=dict)


class AnyGroundTruth(Protocol):
    """What ground truths of all formats have: where they are from, videos and categories."""

    @property
    def path(self) -> str:
        """The file."""

    @property
    def sha256(self) -> str:
        """Hash of its bytes."""

    @property
    def videos(self) -> tuple[AnnotatedVideo, ...]:
        """The videos, in the order of the file."""

    @property
    def categories(self) -> tuple[Category, ...]:
        """The categories, in the order of the file."""


def read_json(path: str) -> tuple[Any, str]:
    """Returns the content of a JSON file and the sha256 of its bytes.

    Raises:
        ValueError: names the file, and what is wrong with it: not there, truncated, not JSON.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return json.loads(data), hashlib.sha256(data).hexdigest()
    except ValueError as error:
        raise ValueError(f"{path}: not JSON, or cut off ({error})") from error
