import io

import pytest

from pipelines.storage import cloud
from pipelines.storage.cloud import CHANGED, CloudObject, RangeCloud

URI = "xy://bucket/key"


class Changing(RangeCloud):
    """An object in memory, which changes when it is read for the first time."""

    def __init__(self, contents: list[bytes]) -> None:
        self.contents = contents

    def head(self, uri: str) -> CloudObject:
        return CloudObject(uri=uri, size=len(self.contents[0]), etag=str(len(self.contents)))

    def read_range(self, uri: str, start: int, stop: int, *, etag: str) -> bytes:
        if len(self.contents) > 1:
            self.contents.pop(0)
            raise OSError(*CHANGED, uri)
        return self.contents[0][start:stop]

    def put_if(self, uri: str, data: bytes, etag: str | None) -> str | None:
        return None


def test_a_small_object_that_is_replaced_meanwhile_is_read_again() -> None:
    assert Changing([b"old", b"new"]).read_tagged(URI) == (b"new", "1")
    with pytest.raises(OSError, match="it changed while it was read"):
        Changing([b"old", b"new"]).download(URI, io.BytesIO())


def test_content_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud, "PIECE_BYTES", 3)
    file = io.BytesIO()
    assert Changing([b"12345678"]).download(URI, file) == "1"
    assert file.getvalue() == b"12345678"
