from pathlib import Path

import boto3
import pytest

from pipelines.storage.cloud_store import CloudStore
from tests.pipelines.storage.s3_server import Proxy


def test_nothing_travels_but_what_is_read(bucket: str, proxy: Proxy) -> None:
    store = CloudStore(bucket)
    data = bytes(3 * 2**20)
    with store.write("a") as file:
        file.write(data)
    proxy.requests.clear()
    with store.open("a") as file:
        file.seek(2**20)
        assert file.read(10) == bytes(10)
        file.seek(-10, 2)
        assert file.read() == bytes(10)
    assert [method for method, _ in proxy.requests] == ["GET", "GET"]
    assert proxy.sent == 2**18 + 2**20


def test_an_object_that_changes_is_no_mix(bucket: str) -> None:
    store = CloudStore(bucket)
    for content in (b"1", b"2"):
        with store.write("a") as file:
            file.write(content * 2**20)
        if content == b"1":
            reader = store.open("a")
    with pytest.raises(OSError, match="it changed while it was read; run again"):
        reader.read(10)


def test_folders_made_in_a_console_are_not_files(bucket: str, tmp_path: Path) -> None:
    for key in ("a/", "a/b/", "a/b/c"):
        boto3.client("s3").put_object(Bucket=bucket.removeprefix("s3://"), Key=key)
    assert [entry.path for entry in CloudStore(bucket).list("a", deep=True)] == ["a/b/c"]
