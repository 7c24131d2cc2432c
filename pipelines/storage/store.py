"""The interface of a kind of storage: a local folder, or a prefix in the cloud."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file in a store.

    Attributes:
        path: relative to the root of the store, with forward slashes.
        size: bytes.
        etag: changes whenever the content does; empty where a store has none.
    """

    path: str
    size: int
    etag: str = ""


class Store(Protocol):
    """Files below a root. Paths are relative to it, and `Storage` has checked them.

    Every error is an `OSError` with the file's full name and a one-line reason; an absent file is a
    `FileNotFoundError`. A store can be pickled.

    Attributes:
        root: full path or URI.
    """

    root: str

    def write(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Opens a file that appears under its name, whole and stored, when the block ends without an error."""

    def put(self, source: Path, path: str) -> None:
        """Copies a local file; it appears whole or not at all."""

    def put_folder(self, source: Path, path: str) -> None:
        """Replaces a folder by a copy of a local one."""

    def open(self, path: str) -> BinaryIO:
        """Opens a file for reading and seeking."""

    def download(self, entries: list[tuple[Entry, Path]]) -> None:
        """Copies files, exactly as they were listed, to local paths."""

    def stat(self, path: str) -> Entry | None:
        """Returns a file's size and ETag; None if it is absent."""

    def list(self, folder: str, *, deep: bool = False) -> Iterator[Entry]:
        """Yields the files in a folder, and those in folders below it if `deep`; "." is the root."""

    def root_exists(self) -> bool:
        """Returns whether the root is a folder; on a store without folders, whether it has any file."""

    def remove(self, path: str) -> None:
        """Removes a file if it exists."""

    def remove_folder(self, path: str) -> None:
        """Removes all files below a folder."""

    def remove_partial(self, path: str) -> None:
        """Removes what dead writers left of a file, or of several for a * in its name."""

    def read_tagged(self, path: str) -> tuple[bytes, str] | None:
        """Returns the content of a small file and its tag; None if it is absent."""

    def replace_tagged(self, path: str, data: bytes, tag: str | None) -> str | None:
        """Writes a small file if its tag is still `tag`, or, for None, if it is absent; atomically.

        Returns:
            The new tag; None if another writer was first.
        """
