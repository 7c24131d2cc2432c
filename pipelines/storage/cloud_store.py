"""Files below a prefix in the cloud."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from pipelines.storage.cloud import Cloud, CloudObject
from pipelines.storage.objects import cloud_of, download_all
from pipelines.storage.ranged_file import TAIL_BYTES, RangedFile
from pipelines.storage.store import Entry


class CloudStore:
    """Files below a prefix. A cloud shows an object whole or not at all, so nothing is renamed.

    Args:
        root: URI of the prefix; nothing need exist below it.
    """

    def __init__(self, root: str) -> None:
        cloud_of(root).check(root)
        self.root = root.rstrip("/")

    @property
    def _cloud(self) -> Cloud:
        return cloud_of(self.root)  # not kept: a store can be pickled

    @contextmanager
    def write(self, path: str) -> Iterator[BinaryIO]:
        """See `Store`; the file is spooled to the local disk and uploaded when it is complete."""
        with tempfile.TemporaryDirectory(prefix="openvis-upload-") as folder:
            spooled = Path(folder, "file")
            with spooled.open("wb") as file:
                yield file
            self.put(spooled, path)

    def put(self, source: Path, path: str) -> None:
        """See `Store`."""
        self._cloud.upload(source, self._uri(path))

    def put_folder(self, source: Path, path: str) -> None:
        """See `Store`; files appear one by one, in the order of their names."""
        self.remove_folder(path)
        for file in sorted(source.rglob("*")):
            if file.is_file():
                self.put(file, f"{path}/{file.relative_to(source).as_posix()}")

    def open(self, path: str) -> BinaryIO:
        """See `Store`; all that is read comes from the object as it is now."""
        uri = self._uri(path)
        tail, entry = self._cloud.read_tail(uri, TAIL_BYTES)
        return cast(BinaryIO, RangedFile(uri, partial(self._cloud.read_range, uri, etag=entry.etag), entry.size, tail))

    def download(self, entries: list[tuple[Entry, Path]]) -> None:
        """See `Store`."""
        download_all([(CloudObject(uri=self._uri(e.path), size=e.size, etag=e.etag), file) for e, file in entries])

    def stat(self, path: str) -> Entry | None:
        """See `Store`."""
        try:
            head = self._cloud.head(self._uri(path))
        except FileNotFoundError:
            return None
        return Entry(path=path, size=head.size, etag=head.etag)

    def list(self, folder: str, *, deep: bool = False) -> Iterator[Entry]:
        """See `Store`."""
        for entry in self._cloud.list_objects(f"{self._uri(folder)}/", delimiter="" if deep else "/"):
            if not entry.uri.endswith("/"):  # the object that consoles make for a folder
                yield Entry(path=entry.uri.removeprefix(f"{self.root}/"), size=entry.size, etag=entry.etag)

    def root_exists(self) -> bool:
        """See `Store`."""
        return any(True for _ in self._cloud.list_objects(f"{self.root}/"))

    def remove(self, path: str) -> None:
        """See `Store`."""
        self._cloud.remove(self._uri(path))

    def remove_folder(self, path: str) -> None:
        """See `Store`."""
        for entry in list(self._cloud.list_objects(f"{self._uri(path)}/")):
            self._cloud.remove(entry.uri)

    def remove_partial(self, path: str) -> None:
        """See `Store`; unfinished uploads are invisible, and a bucket's lifecycle rule ends them."""

    def read_tagged(self, path: str) -> tuple[bytes, str] | None:
        """See `Store`."""
        return self._cloud.read_tagged(self._uri(path))

    def replace_tagged(self, path: str, data: bytes, tag: str | None) -> str | None:
        """See `Store`."""
        return self._cloud.replace_tagged(self._uri(path), data, tag)

    def _uri(self, path: str) -> str:
        return self.root if path == "." else f"{self.root}/{path}"
