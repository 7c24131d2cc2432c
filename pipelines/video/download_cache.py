"""Videos from the cloud and the web on the disk of a node, downloaded once for all its processes.

    FOLDER/lock             locked while space is freed
    FOLDER/HASH/use         readers hold a shared lock on it; its modification time is the last use
    FOLDER/HASH/download    locked by the process that downloads the entry
    FOLDER/HASH/content     the complete file or folder of frames; a draft beside it while it is downloaded

HASH is a hash of URI and ETag, so no key can lead out of the folder. When a process dies, the system frees its locks;
the files that it leaves are used or removed like all others.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from pipelines.storage import objects as clouds
from pipelines.storage.cloud import CloudObject
from pipelines.storage.local import LocalStore, whole_file, whole_folder
from pipelines.video.cloud_sources import frame_folder, list_frames
from pipelines.video.names import VIDEO_SUFFIXES, suffix
from pipelines.video.plan import MachineError, VideoError
from pipelines.video.web import Web, is_web


def is_downloaded(uri: str) -> bool:
    """Returns whether a video is in the cloud or on the web, and not on this machine's file system."""
    return clouds.is_remote(uri) or is_web(uri)


@dataclass(frozen=True, kw_only=True)
class DownloadCache:
    """The cache of the node that it is used on.

    Attributes:
        max_bytes: size above which the least recently used entries are removed. Entries in use stay, so videos that
            are decoded at the same time may take more.
        folder: the cache's folder; null is a folder of this user among the node's temporary files.
        web: downloads from web servers; null refuses them.
    """

    max_bytes: int = int(20e9)
    folder: str | None = None
    web: Web | None = None

    def version(self, uri: str) -> str:
        """Returns the ETag of the current content of a URI; empty for a local path.

        Raises:
            VideoError: the content is missing, or reading it is denied.
            MachineError: the request failed.
        """
        with _video_errors():
            return _etag(uri, self._objects(uri)) if is_downloaded(uri) else ""

    @contextmanager
    def open(self, uri: str, version: str) -> Iterator[str]:
        """Yields a local path of a video, which exists while the block runs; a local video keeps its own path.

        Args:
            uri: local path, or URI in the cloud or on the web.
            version: ETag that the content must have.

        Raises:
            VideoError: the video is missing, or reading it is denied.
            MachineError: it cannot be downloaded here and now, or has changed.
        """
        if not is_downloaded(uri):
            yield uri
            return
        # FFmpeg recognises some formats by the file name alone.
        ending = suffix(urlsplit(uri).path if is_web(uri) else uri)
        name = f"content{ending if ending in VIDEO_SUFFIXES else ''}"
        with _video_errors():
            entry = self._private_folder() / hashlib.sha256(f"{uri}\0{version}".encode()).hexdigest()
            lock = _lock_for_use(entry)
        with lock:
            with _video_errors():
                self._fetch(uri, version, entry / name)
            yield str(entry / name)

    def _fetch(self, uri: str, version: str, content: Path) -> None:
        with _locked(content.parent / "download"):
            if content.exists():
                return
            objects = self._objects(uri)
            if _etag(uri, objects) != version:
                raise OSError(errno.ESTALE, "it has changed since it was listed; run again", uri)
            try:
                self._download(uri, objects, content, self.max_bytes)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._download(uri, objects, content, 0)  # the disk is smaller than the limit: all else goes

    def _download(self, uri: str, objects: list[CloudObject], content: Path, max_bytes: int) -> None:
        LocalStore(str(content.parent)).remove_partial(content.name)
        with ExitStack() as stack:
            with _locked(self._private_folder() / "lock"):
                self._make_room(sum(entry.size for entry in objects), max_bytes)
                if not _is_folder(uri):
                    file = stack.enter_context(whole_file(content))
                    file.truncate(objects[0].size)  # other processes count this space from now on
            if _is_folder(uri):
                folder = stack.enter_context(whole_folder(content))
                clouds.download_all((image, folder / image.uri.rpartition("/")[2]) for image in objects)
            elif self.web and is_web(uri):
                self.web.download(uri, file, etag=objects[0].etag)
            else:
                clouds.cloud_of(uri).download(uri, file, etag=objects[0].etag)

    def _make_room(self, size: int, max_bytes: int) -> None:
        """Removes unused entries, the least recently used first, until `size` more bytes fit into `max_bytes`."""
        entries = [entry for entry in self._private_folder().iterdir() if entry.is_dir()]
        sizes = {entry: _size(entry) for entry in entries}
        total = sum(sizes.values())
        for entry in sorted(entries, key=_last_use):
            if total + size <= max_bytes:
                return
            if _remove_unused(entry):
                total -= sizes[entry]

    def _objects(self, uri: str) -> list[CloudObject]:
        """Returns the object, or the images of a folder."""
        if is_web(uri):
            if self.web is None:
                raise VideoError("is on the web, which only jobs.label reads, with --allow_http true")
            return [self.web.head(uri)]
        objects = list_frames(uri) if _is_folder(uri) else [clouds.head(uri)]
        if not objects:
            raise FileNotFoundError(errno.ENOENT, "the folder has no images", uri)
        return objects

    def _private_folder(self) -> Path:
        folder = Path(self.folder or f"{tempfile.gettempdir()}/openvis-downloads-{os.getuid()}")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise OSError(
                errno.EACCES, "other users own it or have access to it; remove it, or set TMPDIR", str(folder)
            )
        return folder


def _etag(uri: str, objects: list[CloudObject]) -> str:
    return frame_folder(uri, objects).etag if _is_folder(uri) else objects[0].etag


def _is_folder(uri: str) -> bool:
    return uri.endswith("/") and not is_web(uri)


def _lock_for_use(entry: Path) -> BinaryIO:
    """Creates an entry if it is missing; nobody removes it until the returned lock is closed."""
    while True:
        entry.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError), ExitStack() as stack:  # removed meanwhile
            file = stack.enter_context((entry / "use").open("ab"))
            fcntl.flock(file, fcntl.LOCK_SH)
            if (entry / "use").stat().st_ino == os.fstat(file.fileno()).st_ino:
                os.utime(file.fileno())
                stack.pop_all()
                return file


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock while the block runs."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_unused(entry: Path) -> bool:
    """Removes an entry unless it is in use; returns whether it was removed."""
    with (entry / "use").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        aside = entry.with_name(uuid.uuid4().hex)  # a process that needs the entry meanwhile creates a new one
        entry.rename(aside)
        _remove(aside)
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _size(entry: Path) -> int:
    """Returns the size of an entry, including files that are still being downloaded."""
    total = 0
    for folder, _, names in os.walk(entry):
        for name in names:
            with suppress(FileNotFoundError):  # renamed meanwhile
                total += os.stat(os.path.join(folder, name)).st_size
    return total


def _last_use(entry: Path) -> int:
    try:
        return (entry / "use").stat().st_mtime_ns
    except FileNotFoundError:  # the process that created it died
        return 0


@contextmanager
def _video_errors() -> Iterator[None]:
    """Turns a system error into one of the video, if its object is missing or denied, or else of the machine."""
    try:
        yield
    except FileNotFoundError as error:
        raise VideoError("file not found") from error
    except OSError as error:
        kind = VideoError if error.errno == errno.EPERM else MachineError
        raise kind(f"cannot be downloaded: {error.strerror}") from error
