"""Annotations and predictions of video instance segmentation, independent of the file format."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable


class Mask(NamedTuple):
    """One mask.

    Attributes:
        height: height of its frame, pixels.
        width: width of its frame, pixels.
        counts: COCO compressed run lengths.
    """

    height: int
    width: int
    counts: bytes


@dataclass(frozen=True, kw_only=True)
class Category:
    """A category; `partition` as in LV-VIS: 0 and 1 are base categories, 2 and 3 novel ones."""

    id: int
    name: str
    partition: int | None = None


@dataclass(frozen=True, kw_only=True)
class AnnotatedVideo:
    """A video.

    Attributes:
        id: id in the file.
        height: pixels.
        width: pixels.
        length: number of frames.
        file_names: image files of the frames.
        video: encoded file with all frames, if any.
        fps: frames per second; None if the file does not say.
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
        id: id in the file.
        video_id: id of the video.
        category_id: id of the category.
        masks: one per frame of the video, None where the object is absent.
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
    """A prediction; `masks` has one entry per frame of the video, None where the object is absent."""

    video_id: int
    category_id: int
    score: float
    masks: tuple[Mask | None, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundTruth:
    """A ground truth file.

    Attributes:
        path: the file.
        sha256: hash of its bytes.
        videos: in the order of the file.
        categories: in the order of the file.
        tracks: in the order of the file.
        warnings: oddities that were accepted, and how often each occurs.
    """

    path: str
    sha256: str
    videos: tuple[AnnotatedVideo, ...]
    categories: tuple[Category, ...]
    tracks: tuple[AnnotatedTrack, ...]
    warnings: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class AnyGroundTruth(Protocol):
    """The part that ground truths of all formats share."""

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
        ValueError: the file is missing, truncated or not JSON; names it.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return json.loads(data), hashlib.sha256(data).hexdigest()
    except ValueError as error:
        raise ValueError(f"{path}: not JSON, or cut off ({error})") from error
