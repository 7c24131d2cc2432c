"""What a vocabulary shows instead of naming it: pictures, and tracks of archives. Imports neither torch nor PIL.

`NAME: EXEMPLAR, EXEMPLAR` is a category of a vocabulary file. An exemplar is one of

    cup.jpg                            all of a picture
    cup.jpg box 10 20 200 180          a box in it: left, top, width, height, in pixels
    cup.jpg mask cup_mask.png          a mask of the same size: what is brighter than half of its brightest pixel
    track: VIDEO_ID/TRACK_ID           a track of the archive that is relabelled or searched
    track: VIDEO_ID/TRACK_ID of labels/    a track of another archive
"""

import hashlib
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float32, UInt8

Box = tuple[int, int, int, int]
"""Left, top, width and height, pixels."""

_ENDING = r"\.(?:jpe?g|png|webp)"
_PICTURE = re.compile(rf"(?P<path>.+?{_ENDING})(?: +(?:box +(?P<box>.+)|mask +(?P<mask>.+{_ENDING})))?", re.IGNORECASE)
_TRACK = re.compile(r"track: *(?P<video>[^/\s]+)/(?P<track>\d{1,10})(?: +of +(?P<archive>.+))?")
_BETWEEN = re.compile(r",(?!\s*\d+(?:[\s,]+\d+)*\s*(?:,|$))")  # exemplars; within a box, numbers follow
_NAMES_PICTURE = re.compile(rf".*{_ENDING}( +(box|mask) .*)?", re.IGNORECASE)


@dataclass(frozen=True)
class PictureContent:
    """What a picture shows.

    Attributes:
        pixels: RGB, upright.
        coverage: share of each pixel that belongs to the object, of 255; None for all of the picture.
        digest: hash of the files and the box.
    """

    pixels: UInt8[np.ndarray, "H W 3"]
    coverage: UInt8[np.ndarray, "H W"] | None
    digest: str


@dataclass(frozen=True)
class CheckedPicture:
    """A picture that can be used; its pixels are in memory only while they are.

    Attributes:
        digest: hash of the files and the box.
        load: reads the files again; raises ValueError, with the place and the exemplar, if they have changed since.
    """

    digest: str
    load: Callable[[], PictureContent]


@dataclass(frozen=True)
class PictureExemplar:
    """A picture of a category.

    Attributes:
        path: of the file, local or in the cloud.
        box: where the object is; None for everywhere.
        mask: path of a mask; not together with a box.
        place: where the exemplar is given, for errors.
        content: its digest, and what reads it; None until `pictures.read_pictures` has checked it.
    """

    path: str
    box: Box | None = None
    mask: str | None = None
    place: str = field(default="vocabulary", compare=False)
    content: CheckedPicture | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        part = f" mask {self.mask}" if self.mask else ""
        return self.path + (f" box {' '.join(map(str, self.box))}" if self.box else part)

    @property
    def digest(self) -> str:
        """What embeddings depend on, for hashes.

        Raises:
            ValueError: the picture was not read.
        """
        if self.content is None:
            raise ValueError(f"{self.place}: {self}: was not read; call read_pictures")
        return self.content.digest

    def mapped(self, change: Callable[[str], str]) -> "PictureExemplar":
        """Returns the exemplar with other paths."""
        return replace(self, path=change(self.path), mask=self.mask and change(self.mask))


@dataclass(frozen=True)
class TrackExemplar:
    """A track of a labelled archive.

    Attributes:
        video_id: id of its video.
        track_id: its id in the video.
        archive: the archive, local or in the cloud; None for the one that is relabelled or searched.
        place: where the exemplar is given, for errors.
        embedding: unit norm; None until `pipelines.archive.exemplars.read_tracks` has read it.
    """

    video_id: str
    track_id: int
    archive: str | None = None
    place: str = field(default="vocabulary", compare=False)
    embedding: Float32[np.ndarray, " D"] | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"track: {self.video_id}/{self.track_id}" + (f" of {self.archive}" if self.archive else "")

    @property
    def digest(self) -> str:
        """What embeddings depend on, for hashes.

        Raises:
            ValueError: the track was not read.
        """
        if self.embedding is None:
            raise ValueError(f"{self.place}: {self}: was not read; call read_tracks of pipelines.archive.exemplars")
        return hashlib.sha256(self.embedding.tobytes()).hexdigest()

    def mapped(self, change: Callable[[str], str]) -> "TrackExemplar":
        """Returns the exemplar with another path of its archive."""
        return replace(self, archive=self.archive and change(self.archive))


Exemplar = PictureExemplar | TrackExemplar


def parse_exemplar(text: str, place: str = "vocabulary") -> Exemplar:
    """Reads one exemplar.

    Args:
        text: as the module describes it.
        place: where it is given, for errors.

    Raises:
        ValueError: the text is none; names the place, the text and what to write.
    """
    text = text.strip()
    if found := _TRACK.fullmatch(text):
        return TrackExemplar(found["video"], int(found["track"]), found["archive"], place)
    if text.startswith("track:"):
        raise ValueError(f"{place}: {text!r} names no track; write track: VIDEO_ID/TRACK_ID, or … of ARCHIVE after it")
    if not (found := _PICTURE.fullmatch(text)):
        raise ValueError(
            f"{place}: {text!r} is neither a picture (.jpg, .jpeg, .png, .webp) nor a track (track: VIDEO_ID/TRACK_ID)"
            "; correct it, or put a name with a colon into a .json file"
        )
    box = found["box"] and re.fullmatch(r"(\d{1,6})[ ,]+(\d{1,6})[ ,]+(\d{1,6})[ ,]+(\d{1,6})", found["box"].strip())
    if found["box"] and not box:
        raise ValueError(
            f"{place}: {text!r}: the box is {found['box']!r}; write left, top, width and height in whole pixels: "
            "box 10 20 200 180"
        )
    if found["mask"] and re.search(rf"{_ENDING} +mask +", found["mask"], re.IGNORECASE):
        raise ValueError(f"{place}: {text!r}: has several masks; draw all of the object into one")
    left, top, width, height = map(int, box.groups()) if box else (0, 0, 0, 0)
    return PictureExemplar(found["path"], (left, top, width, height) if box else None, found["mask"], place)


def parse_exemplars(text: str, place: str = "vocabulary") -> tuple[Exemplar, ...]:
    """Reads exemplars separated by commas; raises as `parse_exemplar`."""
    return tuple(parse_exemplar(each, place) for each in _BETWEEN.split(text))


def names_picture(name: str) -> bool:
    """Returns whether a text that stands where a name is expected looks like a picture."""
    return bool(_NAMES_PICTURE.fullmatch(name.strip()))


def relative_to(path: str, file: str) -> str:
    """Returns the full path of one that is relative to the folder of a file, local or on S3, or to the home (`~`)."""
    path = posixpath.expanduser(path)
    if "://" in path or posixpath.isabs(path):
        return path
    scheme, mark, place = file.rpartition("://")
    return scheme + mark + posixpath.normpath(posixpath.join(posixpath.dirname(place), path))
