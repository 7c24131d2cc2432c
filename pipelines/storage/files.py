"""Files below a root, a local folder or a prefix on S3: the one place that knows where they are.

Whatever is written appears whole under its name or not at all.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from pipelines.storage import s3

_PARTIAL = ".partial"  # ends the hidden name that a file has while it is written


class Storage:
    """Files below a root; paths are relative to it, with forward slashes. Can be pickled.

    Args:
        root: a local folder or s3://bucket/prefix; it need not exist yet.

    Raises:
        ValueError: for a root with a scheme that is not supported. All methods: for a path that leads out of the root.
    """

    def __init__(self, root: str) -> None:
        if "://" in root and not root.startswith(("file://", "s3://")):
            raise ValueError(f"{root}: only local folders and s3:// are supported; mount or copy it")
        self._place: _Place = _Prefix(root) if s3.is_s3(root) else _Folder(root.removeprefix("file://"))

    @property
    def root(self) -> str:
        """The whole path or URI of the root."""
        return self._place.root

    def check_writable(self, folder: str = "", option: str = "output") -> None:
        """Writes, lists, reads and removes a small file in a folder.

        Args:
            folder: in the root.
            option: that the root was given as, for errors.

        Raises:
            ValueError: names the root and what the system says.
        """
        name = f".writable-{uuid.uuid4().hex}"
        probe = f"{folder}/{name}".removeprefix("/")
        try:
            with self.write(probe) as file:
                file.write(b"")
            next(self.list(folder or "."), None)
            with self.read(probe) as file:
                file.read()
            self.remove(probe)
        except OSError as error:
            raise ValueError(
                f"{option}: cannot write to {self.root}/{folder} ({error.strerror}); choose another folder"
            ) from error

    @contextmanager
    def write(self, path: str) -> Iterator[BinaryIO]:
        """Opens a file for writing; it gets its name when the block ends without an error, after it is stored."""
        with self._place.write(_checked(path)) as file:
            yield file

    def put(self, source: Path, path: str) -> None:
        """Copies a local file."""
        self._place.put(source, _checked(path))

    @contextmanager
    def read(self, path: str) -> Iterator[BinaryIO]:
        """Opens a file for reading; raises FileNotFoundError if it is not there."""
        with self._place.read(_checked(path)) as file:
            yield file

    def read_tagged(self, path: str) -> tuple[bytes, str] | None:
        """What a small file holds, and a tag that stands for it; None if it is not there."""
        return self._place.read_tagged(_checked(path))

    def replace_tagged(self, path: str, data: bytes, tag: str | None) -> str | None:
        """Writes a small file if it still has a tag, or, for None, if it is not there; no other writer comes between.

        Returns:
            Its new tag; None if it was not written.
        """
        return self._place.replace_tagged(_checked(path), data, tag)

    def list(self, folder: str) -> Iterator[str]:
        """Paths of the files in a folder, in no order; hidden ones, which are being written, are left out."""
        return (path for path, _ in self.sizes(folder))

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        """As `list`, with their sizes in bytes."""
        for name, size in self._place.entries(_checked(folder)):
            if not name.startswith("."):
                yield f"{folder}/{name}", size

    def exists(self, path: str) -> bool:
        """Whether a file is there."""
        return self._place.exists(_checked(path))

    def is_there(self) -> bool:
        """Whether there is a folder at the root, or on S3 anything below it."""
        return self._place.is_there()

    def remove(self, path: str) -> None:
        """Removes a file if it is there."""
        self._place.remove(_checked(path))

    def remove_partial(self, path: str) -> None:
        """Removes what writers that died have left of a file, with * in its name of several; nobody else may write."""
        self._place.remove_partial(_checked(path))


def folder_of(file: str) -> tuple[Storage, str]:
    """The storage of the folder that a file is in, and its name there.

    Args:
        file: local or s3://.

    Raises:
        ValueError: it names no file, or has a scheme that is not supported.
    """
    folder, _, name = file.rpartition("/")
    if s3.is_s3(file) and not s3.split(file)[1]:
        raise ValueError(f"{file}: names no file; give s3://bucket/key")
    return Storage(folder or ("/" if file.startswith("/") else ".")), name


class _Place(Protocol):
    """What a kind of root can do with checked paths."""

    root: str

    @contextmanager
    def write(self, path: str) -> Iterator[BinaryIO]: ...
    def put(self, source: Path, path: str) -> None: ...
    @contextmanager
    def read(self, path: str) -> Iterator[BinaryIO]: ...
    def read_tagged(self, path: str) -> tuple[bytes, str] | None: ...
    def replace_tagged(self, path: str, data: bytes, tag: str | None) -> str | None: ...
    def entries(self, folder: str) -> Iterator[tuple[str, int]]: ...
    def exists(self, path: str) -> bool: ...
    def is_there(self) -> bool: ...
    def remove(self, path: str) -> None: ...
    def remove_partial(self, path: str) -> None: ...


class _Folder:
    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)  # other processes have other working folders

    @contextmanager
    def write(self, path: str) -> Iterator[BinaryIO]:
        target = self._resolve(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}{_PARTIAL}")
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def put(self, source: Path, path: str) -> None:
        with source.open("rb") as file, self.write(path) as target:
            shutil.copyfileobj(file, target)

    @contextmanager
    def read(self, path: str) -> Iterator[BinaryIO]:
        with self._resolve(path).open("rb") as file:
            yield file

    def read_tagged(self, path: str) -> tuple[bytes, str] | None:
        try:
            data = self._resolve(path).read_bytes()
        except FileNotFoundError:
            return None
        return data, hashlib.sha256(data).hexdigest()

    def replace_tagged(self, path: str, data: bytes, tag: str | None) -> str | None:
        folder = self._resolve(path).parent
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # the system frees it when a process dies
            self.remove_partial(path)
            found = self.read_tagged(path)
            if (found and found[1]) != tag:
                return None
            with self.write(path) as file:
                file.write(data)
        finally:
            os.close(descriptor)
        return hashlib.sha256(data).hexdigest()

    def entries(self, folder: str) -> Iterator[tuple[str, int]]:
        base = self._resolve(folder)
        if base.is_dir():
            for entry in os.scandir(base):
                with suppress(FileNotFoundError):  # removed meanwhile
                    if entry.is_file():
                        yield entry.name, entry.stat().st_size

    def exists(self, path: str) -> bool:
        return self._resolve(path).is_file()

    def is_there(self) -> bool:
        return os.path.isdir(self.root)

    def remove(self, path: str) -> None:
        self._resolve(path).unlink(missing_ok=True)

    def remove_partial(self, path: str) -> None:
        target = self._resolve(path)
        for file in target.parent.glob(f".{target.name}.*{_PARTIAL}"):
            file.unlink(missing_ok=True)

    def _resolve(self, path: str) -> Path:
        return Path(self.root, path)


class _Prefix:
    def __init__(self, root: str) -> None:
        s3.split(root)
        self.root = root.rstrip("/")

    @contextmanager
    def write(self, path: str) -> Iterator[BinaryIO]:
        with tempfile.TemporaryDirectory(prefix="openvis-upload-") as folder:
            spooled = Path(folder, "file")
            with spooled.open("wb") as file:
                yield file
            self.put(spooled, path)

    def put(self, source: Path, path: str) -> None:
        s3.upload(source, self._uri(path))

    @contextmanager
    def read(self, path: str) -> Iterator[BinaryIO]:
        with s3.local_copy(self._uri(path)) as copy, copy.open("rb") as file:
            yield file

    def read_tagged(self, path: str) -> tuple[bytes, str] | None:
        return s3.read_tagged(self._uri(path))

    def replace_tagged(self, path: str, data: bytes, tag: str | None) -> str | None:
        return s3.replace_tagged(self._uri(path), data, tag)

    def entries(self, folder: str) -> Iterator[tuple[str, int]]:
        base = f"{self._uri(folder)}/"
        for found in s3.list_objects(base, delimiter="/"):
            if found.uri != base:  # the object that consoles make for a folder
                yield found.uri.removeprefix(base), found.size

    def exists(self, path: str) -> bool:
        try:
            s3.head(self._uri(path))
        except FileNotFoundError:
            return False
        return True

    def is_there(self) -> bool:
        return any(True for _ in s3.list_objects(f"{self.root}/"))

    def remove(self, path: str) -> None:
        s3.remove(self._uri(path))

    def remove_partial(self, path: str) -> None:
        """Nothing is to be seen of them; a bucket's lifecycle rule ends uploads that are not completed."""

    def _uri(self, path: str) -> str:
        return self.root if path == "." else f"{self.root}/{path}"


def _checked(path: str) -> str:
    """The path, which must stay below the root."""
    parts = path.split("/")
    if {"", ".."} & set(parts):
        raise ValueError(f"path: {path!r} leads out of its folder or has an empty part; give one like a/b")
    return path if path == "." else path.removeprefix("./")


def check_output(option: str, output: str, suffix: str) -> None:
    """Finds out whether a file can be written, before the work that it is for.

    Args:
        option: that it was given as, for errors.
        output: local or s3://.
        suffix: with which its name must end.

    Raises:
        ValueError: it cannot; says why.
    """
    path = Path(output)
    if path.suffix.lower() != suffix:
        raise ValueError(f"{option}: {output} must end with {suffix}")
    if "://" in output:
        try:
            folder_of(output)[0].check_writable(option=option)
        except ValueError as error:
            raise ValueError(f"{option}: {str(error).removeprefix(f'{option}: ')}") from error
        return
    if path.is_dir():
        raise ValueError(f"{option}: {output} is a folder; give a file in it")
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{option}: cannot write {output} ({folder} is no folder to write to); choose another path")


@contextmanager
def written_whole(output: str, suffix: str) -> Iterator[Path]:
    """Gives the path of a draft, which is put in place if the block ends without an error."""
    if Path(output).suffix.lower() != suffix:
        raise ValueError(f"output: {output} must end with {suffix}")
    storage, name = folder_of(output)
    with tempfile.TemporaryDirectory(prefix="openvis-render-") as drafts:
        draft = Path(drafts, f"draft{suffix}")
        yield draft
        try:
            storage.put(draft, name)
        except OSError as error:
            raise ValueError(f"output: cannot write {output} ({error.strerror}); choose another path") from error
