import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from pipelines import s3
from tests.pipelines.s3_server import Proxy, start_server

SECRET = "secret-that-nobody-may-see"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    endpoint, stop = start_server()
    yield endpoint
    stop()


@pytest.fixture
def s3_environment(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The AWS configuration of a user whose S3 is the server."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    s3._client.cache_clear()
    yield
    s3._client.cache_clear()


@pytest.fixture
def bucket(s3_environment: None) -> str:
    """The URI of a new, empty bucket."""
    name = f"bucket-{uuid.uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


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
