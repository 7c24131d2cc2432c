"""Local folders: files and folders that appear whole or not at all."""

import errno
import fcntl
import hashlib
import io
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.storage.store import Entry

_PARTIAL = ".partial"  # ends the hidden name of a file or folder that is being written
_LOCK = ".lock"  # in a folder; never removed, because others may hold it


@contextmanager
def whole_file(target: Path, place: Callable[[Path, Path], None] = os.replace) -> Iterator[BinaryIO]:
    """Opens a file that gets its name, safe from a power failure, when the block ends without an error.

    Args:
        target: the file.
        place: gives a draft its name.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(target)
    try:
        raw = _File(draft, "wb", target)
        with io.BufferedWriter(raw, _block(raw)) as file:
            yield file
            file.flush()
            with _naming(target):
                os.fsync(file.fileno())
        place(draft, target)
        _sync(target.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Gives an empty folder, which gets its name, safe from a power failure, when the block ends without an error.

    It replaces an earlier one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(target)
    draft.mkdir()
    try:
        yield draft
        for path in (*draft.rglob("*"), draft):
            _sync(path)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


class LocalStore:
    """Files in a local folder.

    Args:
        root: the folder; it need not exist.
    """

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)  # other processes have other working folders

    @contextmanager
    def write(self, path: str) -> Iterator[BinaryIO]:
        """See `Store`."""
        with whole_file(self._resolve(path)) as file:
            yield file

    def put(self, source: Path, path: str) -> None:
        """See `Store`."""
        with _open(source) as file, self.write(path) as target:
            shutil.copyfileobj(file, target)

    def put_folder(self, source: Path, path: str) -> None:
        """See `Store`; the folder appears whole."""
        with whole_folder(self._resolve(path)) as draft:
            for file in sorted(source.rglob("*")):
                if file.is_file():
                    LocalStore(str(draft)).put(file, file.relative_to(source).as_posix())

    def open(self, path: str) -> BinaryIO:
        """See `Store`."""
        return _open(self._resolve(path))

    def download(self, entries: list[tuple[Entry, Path]]) -> None:
        """See `Store`."""
        for entry, target in entries:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._resolve(entry.path), target)

    def stat(self, path: str) -> Entry | None:
        """See `Store`."""
        file = self._resolve(path)
        try:
            return Entry(path=path, size=file.stat().st_size) if file.is_file() else None
        except FileNotFoundError:  # just removed
            return None

    def list(self, folder: str, *, deep: bool = False) -> Iterator[Entry]:
        """See `Store`."""
        base = self._resolve(folder)
        if base.is_dir():
            for item in os.scandir(base):
                path = item.name if folder == "." else f"{folder}/{item.name}"
                with suppress(FileNotFoundError):  # just removed
                    if item.is_file():
                        yield Entry(path=path, size=item.stat().st_size)
                    elif deep and item.is_dir():
                        yield from self.list(path, deep=True)

    def root_exists(self) -> bool:
        """See `Store`."""
        return os.path.isdir(self.root)

    def remove(self, path: str) -> None:
        """See `Store`."""
        self._resolve(path).unlink(missing_ok=True)

    def remove_folder(self, path: str) -> None:
        """See `Store`."""
        folder = self._resolve(path)
        if folder.is_dir():
            shutil.rmtree(folder)

    def remove_partial(self, path: str) -> None:
        """See `Store`."""
        target = self._resolve(path)
        for left in target.parent.glob(f".{target.name}.*{_PARTIAL}"):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)

    def read_tagged(self, path: str) -> tuple[bytes, str] | None:
        """See `Store`."""
        while True:
            try:
                file = self.open(path)
            except FileNotFoundError:
                return None
            with file, suppress(FileNotFoundError):  # another machine has just replaced it
                data = file.read()
                return data, hashlib.sha256(data).hexdigest()

    def replace_tagged(self, path: str, data: bytes, tag: str | None) -> str | None:
        """See `Store`."""
        target = self._resolve(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent):
            self.remove_partial(path)
            current = self.read_tagged(path)
            if (current and current[1]) != tag:
                return None
            try:
                with whole_file(target, _place_new if tag is None else os.replace) as file:
                    file.write(data)
            except FileExistsError:
                return None
        return hashlib.sha256(data).hexdigest()

    def _resolve(self, path: str) -> Path:
        return Path(self.root, path)


class _File(io.FileIO):
    """A local file whose errors name it, which Python leaves out once a file is open.

    Args:
        path: where it is.
        mode: as of `open`.
        target: its name in errors.
    """

    def __init__(self, path: Path, mode: str, target: Path) -> None:
        super().__init__(str(path), mode)
        self._target = target

    def readinto(self, buffer: Any) -> int:
        """See `io.FileIO`."""
        with _naming(self._target):
            return super().readinto(buffer)

    def readall(self) -> bytes:
        """See `io.FileIO`."""
        with _naming(self._target):
            return super().readall()

    def write(self, data: Any) -> int:
        """See `io.FileIO`."""
        with _naming(self._target):
            return super().write(data)


def _open(path: Path) -> BinaryIO:
    raw = _File(path, "rb", path)
    return io.BufferedReader(raw, _block(raw))


def _block(file: io.FileIO) -> int:
    """Returns the size of buffer that suits a file's disk, which `open` would take, bytes."""
    return os.fstat(file.fileno()).st_blksize


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Names the file in errors of the system that do not; one that another machine has removed (NFS) is absent."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        number = errno.ENOENT if error.errno == errno.ESTALE else error.errno
        raise OSError(number, error.strerror, str(file)) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder while the block runs; the system frees it when a process dies.

    It is one on a file that is open for writing: NFS locks folders on each machine by itself.
    """
    file = folder / _LOCK
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with suppress(OSError):  # it is another user's
            os.fchmod(descriptor, folder.stat().st_mode & 0o666)  # who may write to the folder may lock it
        with _naming(file):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _place_new(draft: Path, target: Path) -> None:
    """Gives a draft its name, unless a file has it; where there are no hard links, the folder's lock must suffice.

    Raises:
        FileExistsError: a file has it.
    """
    try:
        os.link(draft, target)
    except FileExistsError:
        raise
    except OSError:
        os.replace(draft, target)


def _draft(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}{_PARTIAL}")


def _sync(path: Path) -> None:
    """Makes a file's content, or the names in a folder, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with _naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
