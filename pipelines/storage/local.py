"""Local folders: files and folders that appear whole or not at all."""

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pipelines.storage.store import Entry

_PARTIAL = ".partial"  # ends the hidden name of a file or folder that is being written


@contextmanager
def whole_file(target: Path) -> Iterator[BinaryIO]:
    """Opens a file that gets its name, safe from a power failure, when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(target)
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
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
        with source.open("rb") as file, self.write(path) as target:
            shutil.copyfileobj(file, target)

    def put_folder(self, source: Path, path: str) -> None:
        """See `Store`; the folder appears whole."""
        with whole_folder(self._resolve(path)) as draft:
            for file in sorted(source.rglob("*")):
                if file.is_file():
                    LocalStore(str(draft)).put(file, file.relative_to(source).as_posix())

    def open(self, path: str) -> BinaryIO:
        """See `Store`."""
        return self._resolve(path).open("rb")

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
        try:
            data = self._resolve(path).read_bytes()
        except FileNotFoundError:
            return None
        return data, hashlib.sha256(data).hexdigest()

    def replace_tagged(self, path: str, data: bytes, tag: str | None) -> str | None:
        """See `Store`."""
        folder = self._resolve(path).parent
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # the system frees it when a process dies
            self.remove_partial(path)
            current = self.read_tagged(path)
            if (current and current[1]) != tag:
                return None
            with self.write(path) as file:
                file.write(data)
        finally:
            os.close(descriptor)
        return hashlib.sha256(data).hexdigest()

    def _resolve(self, path: str) -> Path:
        return Path(self.root, path)


def _draft(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}{_PARTIAL}")


def _sync(path: Path) -> None:
    """Makes a file's content, or the names in a folder, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
