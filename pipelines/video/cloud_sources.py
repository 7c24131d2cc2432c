"""Finds videos in the cloud by listing objects alone.

A folder of frames is one video: its URI ends with a slash, its size is that of all images together, and its ETag is a
hash of theirs.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from pipelines.storage import objects
from pipelines.storage.cloud import CloudObject
from pipelines.video.names import is_image, is_video, natural_key


def find_in_prefix(source: str) -> Iterator[CloudObject]:
    """Yields the videos in a folder, with or without a slash at its end, or those that match a glob.

    They are sorted by URI, except that a folder of frames comes after its contents. Hidden objects and objects in
    hidden folders are left out, unless a glob names them.

    Raises:
        OSError: the cloud refused the request or is not reachable.
    """
    if magic := re.search(r"[*?[]", source):
        patterns = source.rstrip("/").split("/")
        for video in _walk(source[: magic.start()]):
            if _matches(video.uri.rstrip("/").split("/"), patterns):
                yield video
    else:
        folder = f"{source.rstrip('/')}/"
        for video in _walk(folder):
            if not any(part.startswith(".") for part in video.uri.removeprefix(folder).split("/")):
                yield video


def frame_folder(uri: str, images: Sequence[CloudObject]) -> CloudObject:
    """Returns the video that the images of a folder form."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.uri}\0{image.size}\0{image.etag}\0".encode())
    return CloudObject(uri=uri, size=sum(image.size for image in images), etag=digest.hexdigest())


def list_frames(uri: str) -> list[CloudObject]:
    """Returns the images directly in a folder, in natural order; raises as `find_in_prefix`."""
    images = [item for item in objects.list_objects(uri, delimiter="/") if is_image(_name(item))]
    return sorted(images, key=lambda image: natural_key(_name(image)))


@dataclass
class _Folder:
    """A folder whose listing is not complete."""

    uri: str
    images: list[CloudObject] = field(default_factory=list)
    has_videos: bool = False

    def add(self, item: CloudObject) -> None:
        if is_video(_name(item)):
            self.has_videos = True
            self.images.clear()
        elif not self.has_videos:
            self.images.append(item)

    def video(self) -> Iterator[CloudObject]:
        """Yields the video that its images form, unless videos lie beside them: then they may be thumbnails."""
        if self.images:
            yield frame_folder(self.uri, sorted(self.images, key=lambda image: natural_key(_name(image))))


def _walk(prefix: str) -> Iterator[CloudObject]:
    """Yields videos as they are listed; holds only the images of folders whose listing is not complete."""
    folders: list[_Folder] = []  # each inside the previous one
    for item in objects.list_objects(prefix):
        while folders and not item.uri.startswith(folders[-1].uri):
            yield from folders.pop().video()
        if is_video(_name(item)) or is_image(_name(item)):
            uri = item.uri.removesuffix(_name(item))
            if not folders or folders[-1].uri != uri:
                folders.append(_Folder(uri))
            folders[-1].add(item)
            if is_video(_name(item)):
                yield item
    while folders:
        yield from folders.pop().video()


def _name(item: CloudObject) -> str:
    return item.uri.rpartition("/")[2]


def _matches(parts: list[str], patterns: list[str]) -> bool:
    """Returns whether a path matches a glob; as with local globs, ** is any number of folders and never hidden ones."""
    if not patterns or not parts:
        return not parts and all(pattern == "**" for pattern in patterns)
    if patterns[0] == "**":
        return _matches(parts, patterns[1:]) or (not parts[0].startswith(".") and _matches(parts[1:], patterns))
    if parts[0].startswith(".") and not patterns[0].startswith("."):
        return False
    return fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])
