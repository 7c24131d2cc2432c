"""Lists the videos of a source: a folder, glob, file or manifest, local or in the cloud."""

import glob
import hashlib
import itertools
import logging
import os
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np

from pipelines.storage import objects
from pipelines.storage.cloud import CloudObject
from pipelines.video.cloud_sources import find_in_prefix, frame_folder, list_frames
from pipelines.video.manifest import MANIFEST_SUFFIXES, path_of, read_manifest
from pipelines.video.names import VIDEO_SUFFIXES, is_image, is_video, list_images, suffix
from pipelines.video.web import is_web

_log = logging.getLogger(__name__)

_RECENT = 2**16  # hashes in a set, which takes ten times the memory of an array
_LOOK_UPS = 32  # concurrent requests to a cloud


@dataclass(frozen=True, kw_only=True)
class Video:
    """One video of a source: a file, or a folder of frames.

    Attributes:
        video_id: name in all tables, unique within a source. It is made from the whole URI and the content's size and
            modification time (in the cloud, its ETag), so that equal base names never collide and a changed file is
            another video.
        uri: absolute path, or URI in the cloud, which ends with a slash for a folder of frames.
        version: ETag that the content in the cloud must have; empty if unknown or local.
    """

    video_id: str
    uri: str
    version: str = ""


def find_videos(source: str, *, allow_http: bool = False) -> Iterator[Video]:
    """Finds the videos of a source, one at a time and always in the same order.

    The extension alone makes a file a video: junk named .mp4 counts, and fails visibly when it is read. Hidden files
    and files with other extensions are skipped. Below a folder, what cannot be listed and names that are not UTF-8 are
    left out with a warning; a folder that several links lead to is visited once.

    Args:
        source: a folder, searched recursively; a glob; one file; or a manifest (.csv, .jsonl, .parquet) with a column
            `uri`, relative to the manifest, and optionally `video_id`; each local or in the cloud. A folder that
            directly contains images and no video files is one video. A manifest may name missing files; they fail when
            read.
        allow_http: whether a manifest may name videos on web servers. Nobody asks these for the id, which is made from
            the address alone.

    Yields:
        Videos with unique ids and unique URIs.

    Raises:
        ValueError: if the source is missing or has no videos, a video occurs twice, or the cloud denies access; names
            the place, the value and the remedy.
    """
    ids, uris, found = _Seen(), _Seen(), False
    for place, video in _candidates(source, allow_http=allow_http):
        if not uris.add(video.uri):
            raise ValueError(f"{place}: uri {video.uri} is given twice; remove one of the two")
        if not ids.add(video.video_id):
            raise ValueError(f"{place}: video_id {video.video_id!r} is given twice; every video needs its own")
        found = True
        yield video
    if not found and suffix(source) in MANIFEST_SUFFIXES:
        raise ValueError(f"input: {source} lists no videos; give a row for each, with a column uri")
    if not found:
        raise ValueError(f"input: no videos in {source}; known extensions are {' '.join(sorted(VIDEO_SUFFIXES))}")


class _Seen:
    """Texts that were there before, by their hashes: eight bytes each, since there may be millions."""

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.int64)
        self._recent = set[int]()

    def add(self, text: str) -> bool:
        """Adds a text; returns whether it is new."""
        value = hash(text)
        at = self._sorted.searchsorted(value)
        if value in self._recent or (at < len(self._sorted) and self._sorted[at] == value):
            return False
        self._recent.add(value)
        if len(self._recent) == _RECENT:
            recent = np.fromiter(self._recent, np.int64, _RECENT)
            self._sorted = np.sort(np.concatenate([self._sorted, np.sort(recent)]), kind="stable")  # merges two runs
            self._recent.clear()
        return True


def _candidates(source: str, *, allow_http: bool) -> Iterator[tuple[str, Video]]:
    """Yields every video with the place that names it, for error messages."""
    if objects.is_remote(source):
        try:
            yield from _in_cloud(source, allow_http=allow_http)
        except OSError as error:
            raise ValueError(f"input: {error.filename}: {error.strerror}") from error
        return
    if is_web(source):
        raise ValueError(f"input: {source}: is on the web; name it in a manifest, and give --allow_http true")
    source = path_of(source, "input")
    if not _is_text(source):
        raise ValueError(f"input: {_printable(source)}: its name is not UTF-8; rename it")
    if os.path.isdir(source):
        try:
            os.listdir(source)
        except OSError as error:
            raise ValueError(f"input: {source}: {error.strerror}; choose a folder that can be read") from error
        yield from (("input", video) for video in _in_folder(source))
    elif os.path.isfile(source) and suffix(source) in MANIFEST_SUFFIXES:
        yield from _in_manifest(source, allow_http=allow_http)
    elif os.path.isfile(source):
        _check_suffix(source)
        yield "input", _video(source)
    elif glob.has_magic(source):
        seen = set[str]()
        for match in sorted(glob.iglob(source, recursive=True)):
            folder, name = os.path.split(match)
            place = os.path.join(os.path.realpath(folder), name)  # the same one for all ways to it through links
            if place not in seen and (is_video(name) or _is_frame_folder(match)) and _is_utf8(match):
                seen.add(place)
                yield "input", _video(match)
    else:
        raise ValueError(f"input: {source or 'the path'} does not exist; name a folder, file, glob or manifest")


def _in_cloud(source: str, *, allow_http: bool) -> Iterator[tuple[str, Video]]:
    entry = _head(source)
    if entry is None:
        yield from (("input", _cloud_video(video)) for video in find_in_prefix(source))
    elif suffix(source) in MANIFEST_SUFFIXES:
        yield from _in_manifest(source, allow_http=allow_http)
    else:
        _check_suffix(source)
        yield "input", _cloud_video(entry)


def _check_suffix(source: str) -> None:
    if suffix(source) == ".webp":
        raise ValueError(f"input: {source}: animated WebP cannot be decoded; convert it to GIF or MP4")
    if suffix(source) not in VIDEO_SUFFIXES:
        raise ValueError(f"input: {source} is neither a video nor a manifest by its extension; rename it")


def _in_folder(top: str) -> Iterator[Video]:
    """Yields the videos below a folder; follows links, but visits no folder twice, and each by its own path first."""
    links, visited = deque([top]), set[tuple[int, int]]()
    while links:
        yield from _walk(links.popleft(), links, visited)


def _walk(folder: str, links: deque[str], visited: set[tuple[int, int]]) -> Iterator[Video]:
    """Yields the videos below a folder, holding one listing per level; adds to `links` instead of following them."""
    try:
        status, names = os.stat(os.path.join(folder, ".")), sorted(os.listdir(folder))
    except OSError as error:
        _log.warning("input: %s is left out: %s", _printable(folder), error.strerror)
        return
    if (status.st_dev, status.st_ino) in visited:
        return
    visited.add((status.st_dev, status.st_ino))
    if _are_frames(names) and _is_utf8(folder):
        yield _video(folder)
    for path in (os.path.join(folder, name) for name in names if not name.startswith(".")):
        if os.path.isdir(path) and os.path.islink(path):
            links.append(path)
        elif os.path.isdir(path):
            yield from _walk(path, links, visited)
        elif is_video(os.path.basename(path)) and _is_utf8(path):
            yield _video(path)


def _is_utf8(path: str) -> bool:
    """Checks that a path is text, as tables and manifests need; warns if not."""
    if not _is_text(path):
        _log.warning("input: %s is left out: its name is not UTF-8; rename it", _printable(path))
    return _is_text(path)


def _is_text(path: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in path)


def _printable(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _in_manifest(manifest: str, *, allow_http: bool) -> Iterator[tuple[str, Video]]:
    """Yields the videos of a manifest, each with its row, counted from 1 without the header."""
    rows = read_manifest(manifest, allow_http=allow_http)
    with ThreadPoolExecutor(_LOOK_UPS) as pool:  # remote videos without an id take a request each
        while chunk := list(itertools.islice(rows, 8 * _LOOK_UPS)):
            yield from pool.map(_manifest_video, chunk)


def _manifest_video(row: tuple[str, str, str | None]) -> tuple[str, Video]:
    place, uri, video_id = row
    if is_web(uri):
        made = _made_id(urlsplit(uri).path.rstrip("/"), hashlib.sha256(uri.encode()))
        return place, Video(video_id=video_id or made, uri=uri)
    if not objects.is_remote(uri):
        return place, _video(uri, video_id)
    if video_id is not None:
        return place, Video(video_id=video_id, uri=uri)
    images = list_frames(uri) if uri.endswith("/") else []
    entry = frame_folder(uri, images) if images else _head(uri)
    return place, _cloud_video(entry or CloudObject(uri=uri, size=0, etag=""))


def _video(path: str, video_id: str | None = None) -> Video:
    """Makes the `Video` of a file or frame folder; a missing one is identified by its path alone."""
    uri = os.path.abspath(path)
    if video_id is None:
        digest = hashlib.sha256(os.fsencode(uri))
        files = [uri]
        with suppress(OSError):
            files = [os.path.join(uri, name) for name in list_images(uri)] if os.path.isdir(uri) else files
        for file in files:
            with suppress(OSError):  # what cannot be read fails when it is
                stat = os.stat(file)
                digest.update(os.fsencode(f"\0{os.path.basename(file)}\0{stat.st_size}\0{stat.st_mtime_ns}"))
        video_id = _made_id(uri, digest)
    return Video(video_id=video_id, uri=uri)


def _cloud_video(source: CloudObject) -> Video:
    """Makes the `Video` of an object or frame folder in the cloud; a missing one has no ETag."""
    digest = hashlib.sha256(f"{source.uri}\0{source.size}\0{source.etag}".encode())
    return Video(video_id=_made_id(source.uri.rstrip("/"), digest), uri=source.uri, version=source.etag)


def _made_id(uri: str, digest: "hashlib._Hash") -> str:
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", os.path.splitext(os.path.basename(uri))[0]).strip("-")[:48]
    return f"{slug or 'video'}-{digest.hexdigest()[:12]}"


def _head(uri: str) -> CloudObject | None:
    """Returns the object with exactly this URI, or None."""
    if uri.endswith("/") or not objects.key_of(uri):
        return None
    try:
        return objects.head(uri)
    except FileNotFoundError:
        return None


def _is_frame_folder(path: str) -> bool:
    """Checks that the images in a folder are frames of a video, not for example thumbnails of videos beside them."""
    try:
        return os.path.isdir(path) and _are_frames(os.listdir(path))
    except OSError as error:
        _log.warning("input: %s is left out: %s", _printable(path), error.strerror)
        return False


def _are_frames(names: list[str]) -> bool:
    return any(map(is_image, names)) and not any(map(is_video, names))
