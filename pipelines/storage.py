"""Files below a root: the one place that knows where they are.

So far the root is a local folder. Whatever is written appears whole under its name or not at all.
"""

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class Storage:
    """Files below a local folder; paths are relative to it, with forward slashes.

    Args:
        root: the folder; it need not exist yet.

    Raises:
        ValueError: for a root with a scheme that is not supported.
    """

    def __init__(self, root: str) -> None:
        if "://" in root and not root.startswith("file://"):
            raise ValueError(f"{root}: only local folders are supported so far; mount or copy it")
        self.root = Path(root.removeprefix("file://")).absolute()  # other processes have other working folders

    def check_writable(self, folder: str = "") -> None:
        """Writes and removes a small file in a folder.

        Raises:
            ValueError: names the root and what the system says.
        """
        probe = f"{folder}/.writable-{uuid.uuid4().hex}".removeprefix("/")
        try:
            with self.write(probe) as file:
                file.write(b"")
            self.remove(probe)
        except OSError as error:
            raise ValueError(
                f"output: cannot write to {self.root / folder} ({error.strerror}); choose another folder"
            ) from error

    @contextmanager
    def write(self, path: str) -> Iterator[BinaryIO]:
        """Opens a file for writing; it gets its name when the block ends without an error, after it is on the disk."""
        target = self._resolve(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{uuid.uuid4().hex}.partial")
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def put(self, source: Path, path: str) -> None:
        """Copies a local file."""
        with source.open("rb") as file, self.write(path) as target:
            shutil.copyfileobj(file, target)

    @contextmanager
    def read(self, path: str) -> Iterator[BinaryIO]:
        """Opens a file for reading."""
        with self._resolve(path).open("rb") as file:
            yield file

    def read_tagged(self, path: str) -> tuple[bytes, str] | None:
        """What a small file holds, and a tag that stands for it; None if it is not there."""
        try:
            data = self._resolve(path).read_bytes()
        except FileNotFoundError:
            return None
        return data, hashlib.sha256(data).hexdigest()

    def replace_tagged(self, path: str, data: bytes, tag: str | None) -> str | None:
        """Writes a small file if it still has a tag, or, for None, if it is not there; no other writer comes between.

        Returns:
            Its new tag; None if it was not written.
        """
        folder = self._resolve(path).parent
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # the system frees it when a process dies
            found = self.read_tagged(path)
            if (found and found[1]) != tag:
                return None
            with self.write(path) as file:
                file.write(data)
        finally:
            os.close(descriptor)
        return hashlib.sha256(data).hexdigest()

    def list(self, folder: str) -> Iterator[str]:
        """Paths of the files in a folder, in no order; hidden ones, which are being written, are left out."""
        base = self._resolve(folder)
        if base.is_dir():
            for entry in os.scandir(base):
                if entry.is_file() and not entry.name.startswith("."):
                    yield f"{folder}/{entry.name}"

    def exists(self, path: str) -> bool:
        """Whether a file is there."""
        return self._resolve(path).is_file()

    def remove(self, path: str) -> None:
        """Removes a file if it is there."""
        self._resolve(path).unlink(missing_ok=True)

    def _resolve(self, path: str) -> Path:
        parts = path.split("/")
        assert not {"", ".."} & set(parts), path
        return self.root.joinpath(*parts)
