from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import s3
from tests.pipelines.s3_server import Proxy


@pytest.fixture
def proxy(bucket: str, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The way to the server from now on."""
    proxy = Proxy(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 1.0)
    s3._client.cache_clear()
    yield proxy
    proxy.stop()


@pytest.fixture
def put(tmp_path: Path) -> "Put":
    return Put(tmp_path)


class Put:
    """Puts bytes on S3."""

    def __init__(self, tmp_path: Path) -> None:
        self.file = tmp_path / "put"

    def __call__(self, uri: str, content: bytes = b"x") -> str:
        self.file.write_bytes(content)
        s3.upload(self.file, uri)
        return uri
