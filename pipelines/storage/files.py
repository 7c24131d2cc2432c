"""Files below a root, a local folder or a prefix in the cloud: the only place that knows which of the two it is."""

import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipelines.storage.cloud_store import CloudStore
from pipelines.storage.local import LocalStore
from pipelines.storage.objects import SUPPORTED, is_remote, key_of
from pipelines.storage.ranged_file import Range, RangedFile
from pipelines.storage.store import Store

ELSEWHERE = "is another folder on some machine of the cluster; give one that all machines see, or one in the cloud"
"""What is wrong with a local folder that only the driver sees."""


class Storage:
    """Files below a root. Paths are relative to it, with forward slashes. Can be pickled.

    A file appears under its name whole or not at all. A failure is an `OSError` with the file and a one-line reason.

    Args:
        root: a local folder or the URI of a prefix in the cloud, see `objects`; it need not exist.

    Raises:
        ValueError: for a root with another scheme. All methods: for a path that leads out of the root.
    """

    def __init__(self, root: str) -> None:
        remote = is_remote(root)
        if "://" in root and not remote and not root.startswith("file://"):
            raise ValueError(f"{root}: its scheme is unknown; give {SUPPORTED}")
        self._store: Store = CloudStore(root) if remote else LocalStore(root.removeprefix("file://"))

    @property
    def root(self) -> str:
        """The full path or URI of the root."""
        return self._store.root

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder on this machine."""
        return isinstance(self._store, LocalStore)

    def check_writable(self, folder: str = "", option: str = "output") -> None:
        """Writes, lists, reads and removes a small file in a folder.

        Args:
            folder: relative to the root.
            option: option that the root was given as, for errors.

        Raises:
            ValueError: names the root and the system's reason.
        """
        name = f".writable-{uuid.uuid4().hex}"
        probe = f"{folder}/{name}".removeprefix("/")
        try:
            with self.write(probe) as file:
                file.write(b"")
            try:
                next(self.list(folder or "."), None)
                with self.read(probe) as file:
                    file.read()
            finally:
                self.remove(probe)
        except OSError as error:
            raise ValueError(
                f"{option}: cannot write to {self.root}/{folder} ({error.strerror}); choose another folder"
            ) from error

    @contextmanager
    def write(self, path: str) -> Iterator[BinaryIO]:
        """Opens a file for writing; it gets its name when the block ends without an error, after it is stored."""
        with self._store.write(_checked(path)) as file:
            yield file

    def put(self, source: Path, path: str) -> None:
        """Copies a local file."""
        self._store.put(source, _checked(path))

    def put_folder(self, source: Path, path: str) -> None:
        """Replaces a folder by a copy of a local one; it appears whole, but in the cloud file by file."""
        self._store.put_folder(source, _checked(path))

    @contextmanager
    def read(self, path: str) -> Iterator[BinaryIO]:
        """Opens a file for reading and seeking; in the cloud only the bytes that are read are fetched.

        Raises:
            FileNotFoundError: the file is absent; in the cloud also while reading, if it is removed.
        """
        with self._store.open(_checked(path)) as file:
            yield file

    def read_bytes(self, path: str) -> bytes | None:
        """Returns the content of a small file; None if it is absent."""
        tagged = self.read_tagged(path)
        return tagged and tagged[0]

    def read_tagged(self, path: str) -> tuple[bytes, str] | None:
        """Returns the content of a small file and its tag, which changes with the content; None if it is absent."""
        return self._store.read_tagged(_checked(path))

    def replace_tagged(self, path: str, data: bytes, tag: str | None) -> str | None:
        """Writes a small file if its tag is still `tag`, or, for None, if it is absent; no other writer comes between.

        Returns:
            The new tag; None if another writer was first.
        """
        return self._store.replace_tagged(_checked(path), data, tag)

    def download_folder(self, path: str, folder: Path, wanted: Callable[[str], object] = lambda name: True) -> None:
        """Copies a folder's files to a local folder.

        Args:
            path: the folder, "." for the root.
            folder: the local folder; it is created.
            wanted: called with each path relative to the folder; false leaves the file out.
        """
        folder.mkdir(parents=True, exist_ok=True)
        prefix = "" if path == "." else f"{path}/"
        entries = [(entry, entry.path.removeprefix(prefix)) for entry in self._store.list(_checked(path), deep=True)]
        self._store.download([(entry, folder / name) for entry, name in entries if wanted(name)])

    def list(self, folder: str) -> Iterator[str]:
        """Yields the paths of a folder's files, in no order, without hidden ones."""
        return (path for path, _ in self.sizes(folder))

    def sizes(self, folder: str, *, deep: bool = False) -> Iterator[tuple[str, int]]:
        """Yields paths and sizes, in bytes, of a folder's files, in no order, without hidden ones.

        Args:
            folder: "." is the root.
            deep: also files in folders below it.
        """
        for entry in self._store.list(_checked(folder), deep=deep):
            if "/." not in f"/{entry.path.removeprefix(f'{folder}/')}":
                yield entry.path, entry.size

    def size(self, path: str) -> int | None:
        """Returns the size of a file in bytes; None if it is absent."""
        entry = self._store.stat(_checked(path))
        return None if entry is None else entry.size

    def exists(self, path: str) -> bool:
        """Returns whether a file exists."""
        return self.size(path) is not None

    def root_exists(self) -> bool:
        """Returns whether the root is a folder, or in the cloud whether anything is below it."""
        return self._store.root_exists()

    def remove(self, path: str) -> None:
        """Removes a file if it exists."""
        self._store.remove(_checked(path))

    def remove_folder(self, path: str) -> None:
        """Removes a folder and everything in it if it exists."""
        self._store.remove_folder(_checked(path))

    def remove_partial(self, path: str) -> None:
        """Removes what dead writers left of a file, or of several for a * in its name; nobody else may be writing."""
        self._store.remove_partial(_checked(path))


def plan_reads(file: BinaryIO, ranges: Iterable[Range]) -> None:
    """Announces what will be read from a file of `Storage.read`, so that a remote one is fetched in large requests.

    Args:
        file: the file.
        ranges: start and stop in bytes, in rising order.
    """
    if isinstance(file, RangedFile):
        file.plan(ranges)


@contextmanager
def bad_input(option: str) -> Iterator[None]:
    """Turns an error of a storage into a ValueError that names the option, the file and the reason."""
    try:
        yield
    except OSError as error:
        parts = (option, error.filename, error.strerror or error)  # some errors of libraries name no file
        raise ValueError(": ".join(str(part) for part in parts if part is not None)) from error


def folder_of(file: str) -> tuple[Storage, str]:
    """Returns the storage of a file's folder, and the file's name in it.

    Args:
        file: local or in the cloud.

    Raises:
        ValueError: the path names no file, or has a scheme that is not supported.
    """
    file = file.removeprefix("file://")
    folder, _, name = file.rpartition("/")
    if is_remote(file) and not key_of(file):
        raise ValueError(f"{file}: names no file; give {file.rstrip('/')}/key")
    return Storage(folder or ("/" if file.startswith("/") else ".")), name


def _checked(path: str) -> str:
    """Returns a path in its plain form, if it stays below the root."""
    parts = path.split("/")
    if {"", ".."} & set(parts):
        raise ValueError(f"path: {path!r} leads out of its folder or has an empty part; give one like a/b")
    return path if path == "." else path.removeprefix("./")


def check_output(option: str, output: str, suffix: str) -> None:
    """Checks that a file can be written, before the work for it begins.

    Args:
        option: option that the file was given as, for errors.
        output: local or in the cloud.
        suffix: required end of its name.

    Raises:
        ValueError: the file cannot be written; names the reason.
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
        raise ValueError(
            f"{option}: cannot write {output} ({folder} is not a folder that can be written to); choose another path"
        )


@contextmanager
def written_whole(option: str, output: str, suffix: str) -> Iterator[Path]:
    """Gives the path of a local draft, which gets its name when the block ends without an error.

    Args:
        option: option that the file was given as, for errors.
        output: local or in the cloud.
        suffix: required end of its name.

    Raises:
        ValueError: the name ends otherwise, or the file cannot be written.
    """
    if Path(output).suffix.lower() != suffix:
        raise ValueError(f"{option}: {output} must end with {suffix}")
    storage, name = folder_of(output)
    with tempfile.TemporaryDirectory(prefix="openvis-") as drafts:
        draft = Path(drafts, f"draft{suffix}")
        yield draft
        try:
            storage.put(draft, name)
        except OSError as error:
            raise ValueError(f"{option}: cannot write {output} ({error.strerror}); choose another path") from error
