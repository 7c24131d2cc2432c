"""Annotations and predictions of video instance segmentation, independent of the file format."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

Id = int | float | str
"""An id as a file states it."""

UNLISTED = -(1 << 63)
"""Number of a video or category that the file does not list; nothing that it lists has it."""


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
    """A category.

    Attributes:
        id: id in the file; if some of its ids are not whole numbers, the place of this one in their order, from 1.
        name: empty if the file states none.
        partition: as in LV-VIS: 0 and 1 are base categories, 2 and 3 novel ones.
        stated_id: id in the file where that is not `id`: a text, a fraction, or a number among such.
    """

    id: int
    name: str
    partition: int | None = None
    stated_id: Id | None = None


@dataclass(frozen=True, kw_only=True)
class Federation:
    """What is known of an image of a federated data set such as LVIS, for which annotators sought few categories.

    Of all categories that are neither annotated in the image nor `absent`, nothing is known.

    Attributes:
        absent: ids of categories that were sought and are not in the image.
        partial: ids of categories of which not every instance is annotated.
    """

    absent: tuple[int, ...] = ()
    partial: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AnnotatedVideo:
    """A video.

    Attributes:
        id: id in the file; if some of its ids are not whole numbers, the place of this one in their order, from 1.
        height: pixels.
        width: pixels.
        length: number of frames; None if the file does not say.
        file_names: image files of the frames.
        video: encoded file with all frames, if any.
        uri: video that has these frames among others, of labels.
        frames: index in it of each frame.
        fps: frames per second; None if the file does not say.
        federation: what is known of its categories, if only few were sought; None if all were.
        stated_id: id in the file where that is not `id`: a text, a fraction, or a number among such.
    """

    id: int
    height: int
    width: int
    length: int | None
    file_names: tuple[str, ...] = ()
    video: str | None = None
    uri: str | None = None
    frames: tuple[int, ...] = ()
    fps: float | None = None
    federation: Federation | None = None
    stated_id: Id | None = None


Listed = TypeVar("Listed", AnnotatedVideo, Category)


def by_stated_id(listed: Iterable[Listed]) -> dict[Id, Listed]:
    """Returns videos or categories by the ids that the file states."""
    return {each.id if each.stated_id is None else each.stated_id: each for each in listed}


@dataclass(frozen=True, kw_only=True, eq=False)
class AnnotatedTrack:
    """An object of a video.

    Attributes:
        id: id in the file; official tools read a text as a number.
        video_id: id of the video.
        category_id: id of the category.
        masks: one per frame of the video, None where the object is absent.
        areas: one per frame in pixels, as the file states them; None where it states none.
        crowd: whether it is a group of objects.
    """

    id: float
    video_id: int
    category_id: int
    masks: Sequence[Mask | None]
    areas: tuple[float | None, ...]
    crowd: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictedTrack:
    """A prediction; `masks` has one entry per frame of the video, None where the object is absent."""

    video_id: int
    category_id: int
    score: float
    masks: Sequence[Mask | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundTruth:
    """A ground truth file.

    Attributes:
        path: the file.
        sha256: hash of its bytes.
        videos: in the order of the file.
        categories: in the order of the file.
        tracks: in the order of the file.
        annotated: whether the file has annotations; those of public validation sets are on a server.
        warnings: oddities that were accepted, and how often each occurs.
    """

    path: str
    sha256: str
    videos: tuple[AnnotatedVideo, ...]
    categories: tuple[Category, ...]
    tracks: tuple[AnnotatedTrack, ...]
    annotated: bool = True
    warnings: Mapping[str, int] = field(default_factory=dict)

    def check_annotated(self) -> None:
        """Refuses a file without annotations, where these are needed.

        Raises:
            ValueError: names the file.
        """
        if not self.annotated:
            raise ValueError(f"{self.path}: has no annotations; a server has them: hand predictions.json in there")


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

    @property
    def annotated(self) -> bool:
        """Whether the file has annotations."""
