"""What a kind of cloud storage must do: objects by their URI.

A URI is SCHEME://BUCKET/KEY with the key as it is, never percent-encoded. A failure is an `OSError` with the URI as its
file name and the remedy as its text, without credentials, signed addresses or texts of the server. `EHOSTUNREACH` says
that the storage does not answer, which may pass.
"""

import errno
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

READ_TIMEOUT_S = 30.0
"""Silence after which a connection is closed, seconds."""

PART_BYTES = 16 * 2**20
"""Size of the parts of a large upload; a smaller file is uploaded in one request."""

PIECE_BYTES = 8 * 2**20
"""Size of the ranges in which a `RangeCloud` downloads."""

_TYPES = {
    ".css": "text/css",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mp4": "video/mp4",
    ".svg": "image/svg+xml",
}

ABSENT = (errno.ENOENT, "there is no such object or bucket")
CHANGED = (errno.ESTALE, "it changed while it was read; run again")
DENIED = (errno.EPERM, "access is denied; grant the rights that docs/output.md lists")
NO_SUCH_BYTES = (errno.ERANGE, "it has no such bytes")


def content_type(key: str) -> str:
    """Returns how an object is announced to a browser, by the end of its key; bytes if that says nothing."""
    return _TYPES.get(os.path.splitext(key)[1].lower(), "application/octet-stream")


@dataclass(frozen=True, kw_only=True)
class CloudObject:
    """An object.

    Attributes:
        uri: SCHEME://BUCKET/KEY.
        size: bytes.
        etag: changes whenever the content does.
    """

    uri: str
    size: int
    etag: str


class Cloud(Protocol):
    """A kind of cloud storage. All methods raise `OSError`, see above; an absent object is a `FileNotFoundError`."""

    def check(self, uri: str, /) -> str:
        """Returns the key of a URI, which may be empty.

        Raises:
            ValueError: the URI names no bucket.
        """

    def list_objects(self, prefix: str, *, delimiter: str = "") -> Iterator[CloudObject]:
        """Yields the objects whose URI begins with a prefix, sorted; one request for many.

        Args:
            prefix: a URI; it need not end at a slash.
            delimiter: leaves out objects that have it after the prefix.
        """

    def head(self, uri: str) -> CloudObject:
        """Returns size and ETag of an object."""

    def download(self, uri: str, file: BinaryIO | io.BytesIO, *, etag: str | None = None) -> str:
        """Writes an object's content to an empty file; returns its ETag.

        Args:
            uri: the object.
            file: open for writing.
            etag: the content to download; whatever the object holds if None. `OSError` if it has another content.
        """

    def read_range(self, uri: str, start: int, stop: int, *, etag: str) -> bytes:
        """Reads the bytes from `start` to `stop` of an object; raises as `download`."""

    def read_tail(self, uri: str, length: int) -> tuple[bytes, CloudObject]:
        """Reads the last bytes of an object, or all if it is smaller."""

    def upload(self, source: Path, uri: str) -> None:
        """Uploads a local file; the object appears whole or not at all."""

    def remove(self, uri: str) -> None:
        """Removes an object if it exists."""

    def read_tagged(self, uri: str) -> tuple[bytes, str] | None:
        """Returns content and ETag of a small object; None if it is absent."""

    def replace_tagged(self, uri: str, data: bytes, etag: str | None) -> str | None:
        """Writes a small object if its ETag is still `etag`, or, for None, if it is absent.

        Args:
            uri: the object.
            data: content that no other writer uses: a writer whose answer was lost recognises its own by it.
            etag: ETag of the content that is replaced.

        Returns:
            The new ETag; None if another writer was first.
        """


def read_small(uri: str, download: Callable[[str, io.BytesIO], str]) -> tuple[bytes, str] | None:
    """Returns content and ETag of a small object; None if it is absent.

    Args:
        uri: the object.
        download: writes it to a file, and returns its ETag; where it is replaced meanwhile, it is read again.
    """
    while True:
        file = io.BytesIO()
        try:
            etag = download(uri, file)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        else:
            return file.getvalue(), etag


class RangeCloud(ABC):
    """A cloud whose library reads an object in ranges, each of which it asks for again where it broke off."""

    @abstractmethod
    def head(self, uri: str) -> CloudObject:
        """See `Cloud`."""

    @abstractmethod
    def read_range(self, uri: str, start: int, stop: int, *, etag: str) -> bytes:
        """See `Cloud`."""

    @abstractmethod
    def put_if(self, uri: str, data: bytes, etag: str | None) -> str | None:
        """Writes as `replace_tagged`, except that a lost answer counts as another writer."""

    def download(self, uri: str, file: BinaryIO | io.BytesIO, *, etag: str | None = None) -> str:
        """See `Cloud`."""
        entry = self.head(uri)
        if etag not in (None, entry.etag):
            raise OSError(*CHANGED, uri)
        for start in range(0, entry.size, PIECE_BYTES):
            stop = min(start + PIECE_BYTES, entry.size)
            file.write(self.read_range(uri, start, stop, etag=entry.etag))
        return entry.etag

    def read_tail(self, uri: str, length: int) -> tuple[bytes, CloudObject]:
        """See `Cloud`."""
        entry = self.head(uri)
        if not entry.size:
            return b"", entry
        return self.read_range(uri, max(0, entry.size - length), entry.size, etag=entry.etag), entry

    def read_tagged(self, uri: str) -> tuple[bytes, str] | None:
        """See `Cloud`."""
        return read_small(uri, self.download)

    def replace_tagged(self, uri: str, data: bytes, etag: str | None) -> str | None:
        """See `Cloud`."""
        new = self.put_if(uri, data, etag)
        if new is None:
            current = self.read_tagged(uri)  # our own content, if the answer was lost and the request sent again
            return current[1] if current and current[0] == data else None
        return new
