"""Videos among the objects of S3, found by listing alone.

A folder of frames is a video as well: it stands for its images, with a URI that ends at a slash, their size in total
and an ETag made of theirs.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from pipelines.storage import s3
from pipelines.storage.s3 import S3Object
from pipelines.video.names import is_image, is_video, natural_key


def find_in_prefix(source: str) -> Iterator[S3Object]:
    """Videos below s3://bucket/prefix, a folder whether it ends at a slash or not, or that match a glob.

    Sorted by URI, but for folders of frames, which come after what is in them. Hidden objects are left out, and those
    in hidden folders, unless a glob names them.

    Raises:
        OSError: of `s3`.
    """
    if magic := re.search(r"[*?[]", source):
        patterns = source.rstrip("/").split("/")
        for found in _walk(source[: magic.start()]):
            if _matches(found.uri.rstrip("/").split("/"), patterns):
                yield found
    else:
        folder = f"{source.rstrip('/')}/"
        for found in _walk(folder):
            if not any(part.startswith(".") for part in found.uri.removeprefix(folder).split("/")):
                yield found


def frame_folder(uri: str, images: Sequence[S3Object]) -> S3Object:
    """The video that images in a folder are."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.uri}\0{image.size}\0{image.etag}\0".encode())
    return S3Object(uri=uri, size=sum(image.size for image in images), etag=digest.hexdigest())


def list_frames(uri: str) -> list[S3Object]:
    """The images directly in a folder, in natural order; raises OSError of `s3`."""
    images = [found for found in s3.list_objects(uri, delimiter="/") if is_image(_name(found))]
    return sorted(images, key=lambda image: natural_key(_name(image)))


@dataclass
class _Folder:
    """One whose listing has not come to its end."""

    uri: str
    images: list[S3Object] = field(default_factory=list)
    has_videos: bool = False

    def add(self, found: S3Object) -> None:
        if is_video(_name(found)):
            self.has_videos = True
            self.images.clear()
        elif not self.has_videos:
            self.images.append(found)

    def video(self) -> Iterator[S3Object]:
        """Its images, unless they are for example thumbnails of videos beside them."""
        if self.images:
            yield frame_folder(self.uri, sorted(self.images, key=lambda image: natural_key(_name(image))))


def _walk(prefix: str) -> Iterator[S3Object]:
    """Yields videos while they are listed; holds the images of the folders that the listing is in."""
    folders: list[_Folder] = []  # each in the one before
    for found in s3.list_objects(prefix):
        while folders and not found.uri.startswith(folders[-1].uri):
            yield from folders.pop().video()
        if is_video(_name(found)) or is_image(_name(found)):
            uri = found.uri.removesuffix(_name(found))
            if not folders or folders[-1].uri != uri:
                folders.append(_Folder(uri))
            folders[-1].add(found)
            if is_video(_name(found)):
                yield found
    while folders:
        yield from folders.pop().video()


def _name(found: S3Object) -> str:
    return found.uri.rpartition("/")[2]


def _matches(parts: list[str], patterns: list[str]) -> bool:
    """Whether a path matches a glob; as in a local one ** is any folders, and hidden names are to be named."""
    if not patterns or not parts:
        return not parts and all(pattern == "**" for pattern in patterns)
    if patterns[0] == "**":
        return _matches(parts, patterns[1:]) or (not parts[0].startswith(".") and _matches(parts[1:], patterns))
    if parts[0].startswith(".") and not patterns[0].startswith("."):
        return False
    return fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])
