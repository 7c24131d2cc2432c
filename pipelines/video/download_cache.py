"""Videos of S3 on the disk of a node, downloaded once for all processes there that decode segments of them.

    FOLDER/lock             held while room is made
    FOLDER/HASH/use         its shared lock is held by whoever reads the entry; time of change is that of the last use
    FOLDER/HASH/download    its lock is held by whoever downloads the entry
    FOLDER/HASH/partial     what is being downloaded
    FOLDER/HASH/content     a file, or a folder of frames, that is there as a whole

HASH is of URI and ETag, so no key leads anywhere else. The system frees the locks of a process that dies; what it left
behind is used or removed like everything else.
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

from pipelines.storage import s3
from pipelines.storage.s3 import S3Object
from pipelines.video.names import VIDEO_SUFFIXES, suffix
from pipelines.video.plan import VideoError
from pipelines.video.s3_sources import frame_folder, list_frames


@dataclass(frozen=True, kw_only=True)
class DownloadCache:
    """The cache of whichever node it is used on.

    Attributes:
        max_bytes: to which the least recently used entries are removed. What is in use never is, so that videos which
            are decoded at the same time may take more.
        folder: instead of one of this user's in the node's folder for temporary files.
    """

    max_bytes: int = 20 * 2**30
    folder: str | None = None

    def version(self, uri: str) -> str:
        """The ETag of what is now at a URI; empty for a local path.

        Raises:
            VideoError: it is not there, or cannot be asked for.
        """
        with _told():
            return _etag(uri, _objects(uri)) if s3.is_s3(uri) else ""

    @contextmanager
    def open(self, uri: str, version: str) -> Iterator[str]:
        """Gives the local path of a video, which stays while the block lasts; that of a local one is its own.

        Args:
            uri: a local path, or where on S3.
            version: the ETag that it must have.

        Raises:
            VideoError: it is not there, has changed, or cannot be downloaded.
        """
        if not s3.is_s3(uri):
            yield uri
            return
        # FFmpeg tells some formats by their names alone.
        name = f"content{suffix(uri) if suffix(uri) in VIDEO_SUFFIXES else ''}"
        with _told():
            entry = self._private_folder() / hashlib.sha256(f"{uri}\0{version}".encode()).hexdigest()
            lock = _lock_for_use(entry)
        with lock:
            with _told():
                self._fetch(uri, version, entry / name)
            yield str(entry / name)

    def _fetch(self, uri: str, version: str, content: Path) -> None:
        with _locked(content.parent / "download"):
            if content.exists():
                return
            objects, new = _objects(uri), content.parent / "partial"
            if _etag(uri, objects) != version:
                raise OSError(errno.ESTALE, "it has changed since it was listed; run again", uri)
            with _locked(self._private_folder() / "lock"):
                _remove(new)
                self._make_room(sum(each.size for each in objects))
                if uri.endswith("/"):
                    new.mkdir()
                else:
                    with new.open("wb") as file:
                        file.truncate(objects[0].size)  # others who make room count it from now on
            if uri.endswith("/"):
                s3.download_all((image, new / image.uri.rpartition("/")[2]) for image in objects)
            else:
                with new.open("r+b") as file:
                    s3.download(uri, file, etag=version)
            new.rename(content)

    def _make_room(self, size: int) -> None:
        """Removes entries that nobody uses, those first whose last use is longest ago, until there is room."""
        entries = [entry for entry in self._private_folder().iterdir() if entry.is_dir()]
        sizes = {entry: _size(entry) for entry in entries}
        total = sum(sizes.values())
        for entry in sorted(entries, key=_last_use):
            if total + size <= self.max_bytes:
                return
            if _remove_unused(entry):
                total -= sizes[entry]

    def _private_folder(self) -> Path:
        folder = Path(self.folder or f"{tempfile.gettempdir()}/openvis-downloads-{os.getuid()}")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise OSError(errno.EPERM, "it belongs to or is open to others; remove it, or set TMPDIR", str(folder))
        return folder


def _objects(uri: str) -> list[S3Object]:
    """The object, or the images of a folder."""
    objects = list_frames(uri) if uri.endswith("/") else [s3.head(uri)]
    if not objects:
        raise FileNotFoundError(errno.ENOENT, "there are no images in it", uri)
    return objects


def _etag(uri: str, objects: list[S3Object]) -> str:
    return frame_folder(uri, objects).etag if uri.endswith("/") else objects[0].etag


def _lock_for_use(entry: Path) -> BinaryIO:
    """Makes an entry if it is not there; it is not removed until the lock is closed."""
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
    """Has a lock to itself."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_unused(entry: Path) -> bool:
    """Removes an entry, unless somebody uses it; returns whether it did."""
    with (entry / "use").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        aside = entry.with_name(uuid.uuid4().hex)  # whoever wants it meanwhile makes a new one
        entry.rename(aside)
        _remove(aside)
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _size(entry: Path) -> int:
    """Bytes of its files, also of those that are not downloaded yet."""
    total = 0
    for folder, _, names in os.walk(entry):
        for name in names:
            with suppress(FileNotFoundError):  # renamed meanwhile
                total += os.stat(os.path.join(folder, name)).st_size
    return total


def _last_use(entry: Path) -> int:
    try:
        return (entry / "use").stat().st_mtime_ns
    except FileNotFoundError:  # its maker died
        return 0


@contextmanager
def _told() -> Iterator[None]:
    """Turns errors into reasons for people."""
    try:
        yield
    except FileNotFoundError as error:
        raise VideoError("file not found") from error
    except OSError as error:
        raise VideoError(f"cannot be downloaded: {error.strerror}") from error
