import errno
import io
import logging
import ssl
import tempfile
import traceback
from pathlib import Path

import boto3
import numpy as np
import pytest
from werkzeug.serving import make_ssl_devcert

from pipelines.storage import s3
from pipelines.storage.cloud import CloudObject
from pipelines.storage.objects import download_all
from pipelines.storage.outage import is_away
from tests.pipelines.storage.put import Put
from tests.pipelines.storage.s3_server import FAULTS, SECRET, Proxy, fill

CONTENT = np.random.default_rng(0).bytes(3 * 2**20 + 17)

KEYS = (
    "plain.mp4",
    "with space/and  two.mp4",
    "日本/é e\u0301.mp4",
    "100%25 50%/%2e%2e/a%2Fb.mp4",
    "a+b.mp4",
    "what?x=1&y=2#part.mp4",
    "quotes'\"<>&;\\.mp4",
    "//two slashes//.mp4",
    "~a/./b.mp4",
    f"{'n' * 900}.mp4",
)


def content(uri: str, etag: str | None = None) -> bytes:
    with tempfile.TemporaryFile() as file:
        s3.download(uri, file, etag=etag)
        file.seek(0)
        return file.read()


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key[:30])
def test_any_key(bucket: str, key: str, put: Put) -> None:
    uri = put(f"{bucket}/{key}", key.encode())
    (found,) = s3.list_objects(bucket)
    assert (found.uri, found.size) == (uri, len(key.encode()))
    assert s3.head(uri) == found
    assert content(uri, found.etag) == key.encode()
    s3.remove(uri)
    s3.remove(uri)
    assert list(s3.list_objects(bucket)) == []


def test_more_objects_than_a_page_has(bucket: str, proxy: Proxy) -> None:
    fill(bucket, [*(f"a/{number:04} %.mp4" for number in range(2100)), "b/other.mp4"])
    proxy.requests.clear()
    assert [found.uri for found in s3.list_objects(f"{bucket}/a/")] == [f"{bucket}/a/{i:04} %.mp4" for i in range(2100)]
    assert len(set(proxy.requests)) == 3  # one that takes long is repeated
    proxy.requests.clear()
    next(s3.list_objects(f"{bucket}/a/"))
    assert len(set(proxy.requests)) == 1


def test_a_delimiter_leaves_deeper_objects_out(bucket: str, put: Put) -> None:
    for key in ("a/b", "a/c/d", "ab"):
        put(f"{bucket}/{key}")
    assert [found.uri for found in s3.list_objects(f"{bucket}/a/", delimiter="/")] == [f"{bucket}/a/b"]
    assert [found.uri for found in s3.list_objects(f"{bucket}/a")] == [
        f"{bucket}/{key}" for key in ("a/b", "a/c/d", "ab")
    ]


@pytest.mark.parametrize("size", [0, 1, s3.PART_BYTES, 2 * s3.PART_BYTES + 1])
def test_sizes(bucket: str, proxy: Proxy, put: Put, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files go in parts, of which nothing is seen before the last."""
    seen: list[list[CloudObject]] = []
    direct = boto3.client("s3", endpoint_url=f"http://{proxy.target}")

    def look(method: str, path: str) -> None:
        seen.append(direct.list_objects_v2(Bucket=bucket.removeprefix("s3://")).get("Contents", []))

    proxy.before = look
    data = np.random.default_rng(size).bytes(size)
    uri = put(f"{bucket}/a", data)
    proxy.before = lambda method, path: None
    assert proxy.count("PUT", "partNumber") == (3 if size > s3.PART_BYTES else 1 if size == s3.PART_BYTES else 0)
    assert seen
    assert not any(seen)
    assert content(uri) == data


@pytest.mark.slow
def test_the_same_bytes_come_out_whatever_goes_wrong(
    bucket: str, proxy: Proxy, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each twentieth request meets each of the faults."""
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.3)
    s3._client.cache_clear()
    proxy.share = dict.fromkeys(FAULTS, 0.05)
    for number in range(20):
        data = CONTENT[number * 100_000 :]
        uri = put(f"{bucket}/{number}", data)
        assert content(uri) == data
        assert len(list(s3.list_objects(bucket))) == number + 1
    for number in range(20):
        s3.remove(f"{bucket}/{number}")
    assert list(s3.list_objects(bucket)) == []
    assert set(proxy.spoiled) == set(FAULTS)


def test_a_range_and_a_tail_are_read_alone(bucket: str, proxy: Proxy, put: Put) -> None:
    uri = put(f"{bucket}/a", CONTENT)
    etag = s3.head(uri).etag
    proxy.sent = 0
    assert s3.read_range(uri, 1000, 5000, etag=etag) == CONTENT[1000:5000]
    tail, entry = s3.read_tail(uri, 700)
    assert (tail, entry) == (CONTENT[-700:], s3.head(uri))
    assert proxy.sent == 4700
    for small in (b"", b"x"):
        uri = put(f"{bucket}/small", small)
        assert s3.read_tail(uri, 700) == (small, s3.head(uri))
    with pytest.raises(FileNotFoundError):
        s3.read_tail(f"{bucket}/absent", 700)
    with pytest.raises(OSError, match="it changed while it was read"):
        s3.read_range(uri, 0, 1, etag=etag)


@pytest.mark.slow
def test_ranges_survive_every_fault_and_servers_without_ranges(
    bucket: str, proxy: Proxy, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.3)
    s3._client.cache_clear()
    uri = put(f"{bucket}/a", CONTENT)
    etag = s3.head(uri).etag
    proxy.share = dict.fromkeys(FAULTS, 0.1)
    for start in range(0, 3 * 2**20, 2**18):
        assert s3.read_range(uri, start, start + 2**17, etag=etag) == CONTENT[start : start + 2**17]
        assert s3.read_tail(uri, 2**17)[0] == CONTENT[-(2**17) :]
    assert set(proxy.spoiled) == set(FAULTS)
    proxy.share = {}
    proxy.hidden = {"Range"}
    assert s3.read_range(uri, 1000, 500_000, etag=etag) == CONTENT[1000:500_000]
    assert s3.read_tail(uri, 700)[0] == CONTENT[-700:]


def test_several_objects_are_downloaded_as_they_were_listed(bucket: str, put: Put, tmp_path: Path) -> None:
    for number in range(20):
        put(f"{bucket}/{number}", bytes([number]))
    listed = list(s3.list_objects(bucket))
    download_all((entry, tmp_path / "a/b" / entry.uri.rpartition("/")[2]) for entry in listed)
    assert all((tmp_path / "a/b" / str(number)).read_bytes() == bytes([number]) for number in range(20))
    put(f"{bucket}/7", b"new")
    with pytest.raises(OSError, match="it changed while it was read"):
        download_all((entry, tmp_path / entry.uri.rpartition("/")[2]) for entry in listed)


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_a_body_that_breaks_off_is_read_on(bucket: str, proxy: Proxy, put: Put, fault: str) -> None:
    """Each answer brings half of what is missing."""
    uri = put(f"{bucket}/a", CONTENT)
    proxy.share = {fault: 1.0}
    ended = []

    def end(method: str, path: str) -> None:
        ended.append(path)
        if len(ended) == 4:
            proxy.share = {}

    proxy.before = end
    assert content(uri) == CONTENT
    starts = [int(each.removeprefix("bytes=").partition("-")[0]) for each in proxy.ranges]
    assert starts == sorted(starts)
    assert len(CONTENT) / 2 - 2**16 <= starts[0] <= len(CONTENT) / 2
    assert starts[-1] > len(CONTENT) * 0.7


def test_a_body_that_never_comes_is_given_up(
    bucket: str, proxy: Proxy, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 3)
    s3._client.cache_clear()
    uri = put(f"{bucket}/a", b"x")
    proxy.share = {"cut": 1.0}
    with pytest.raises(OSError, match="its body broke off at byte 0 of 1, 3 times .*; check the network.*/a") as raised:
        content(uri)
    assert is_away(raised.value)  # a run waits for it


@pytest.mark.parametrize("size", [5000, 2500])
def test_an_object_that_changes_is_no_mix(bucket: str, proxy: Proxy, put: Put, size: int) -> None:
    uri = put(f"{bucket}/a", CONTENT[:5000])
    etag = s3.head(uri).etag
    direct = boto3.client("s3", endpoint_url=f"http://{proxy.target}")
    proxy.share = {"cut": 1.0}

    def change(method: str, path: str) -> None:
        if proxy.count("GET") == 2:
            proxy.share = {}
            direct.put_object(Bucket=bucket.removeprefix("s3://"), Key="a", Body=CONTENT[-size:])

    proxy.before = change
    with pytest.raises(OSError, match="it changed while it was read; run again"):
        content(uri)
    with pytest.raises(OSError, match="it changed while it was read; run again"):
        content(uri, etag)
    assert content(uri) == CONTENT[-size:]


@pytest.mark.slow
def test_what_is_not_there_may_fall_silent(bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body of an answer that says so; botocore does not ask again."""
    faults = ["stall", "stall"]
    monkeypatch.setattr(proxy, "fault", lambda: faults.pop() if faults else None)
    assert s3.read_tagged(f"{bucket}/absent") is None
    assert proxy.count("GET", "absent") == 3
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    faults += ["stall", "stall"]
    with pytest.raises(OSError, match="cannot be reached") as error:
        s3.read_tagged(f"{bucket}/absent")
    assert is_away(error.value)


def test_what_is_not_there(bucket: str) -> None:
    for act in (s3.head, content):
        with pytest.raises(FileNotFoundError, match="there is no such object or bucket: 's3://bucket-.*/gone.mp4'"):
            act(f"{bucket}/gone.mp4")
    with pytest.raises(FileNotFoundError, match="there is no such bucket; check its name and AWS_ENDPOINT_URL"):
        list(s3.list_objects("s3://no-such-bucket/a"))
    for uri in ("s3://", "s3:///a", "/local"):
        with pytest.raises(ValueError, match="names no bucket; give s3://bucket/key"):
            s3.split(uri)
    with pytest.raises(OSError, match="boto3 refuses .*; check the name: 's3://no bucket/a'"):
        s3.head("s3://no bucket/a")


def test_a_small_object_that_is_replaced_while_it_is_read_is_read_again(
    bucket: str, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, download, tries = put(f"{bucket}/a", b"new"), s3.download, list[str]()

    def replaced_once(uri: str, file: io.BytesIO) -> str:
        tries.append(uri)
        if len(tries) == 1:
            file.write(b"ol")
            raise OSError(errno.ESTALE, "it changed while it was read", uri)
        return download(uri, file)

    monkeypatch.setattr(s3, "download", replaced_once)
    tagged = s3.read_tagged(uri)
    assert tagged
    assert tagged[0] == b"new"
    assert len(tries) == 2


@pytest.mark.parametrize(("status", "away"), [(429, True), (503, True), (400, False)])
def test_a_server_that_is_overrun_is_away(
    bucket: str, proxy: Proxy, status: int, away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    s3._client.cache_clear()
    proxy.refuse(status, "Strange")
    with pytest.raises(OSError, match="S3 answers Strange") as refused:
        s3.read_tagged(f"{bucket}/a")
    assert is_away(refused.value) == away


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (403, "AccessDenied", "access is denied; grant the rights that docs/output.md lists"),
        (403, "SignatureDoesNotMatch", "the credentials are refused; renew them"),
        (403, "ExpiredToken", "the credentials are refused; renew them"),
        (400, "KeyTooLongError", "its key is longer than 1,024 bytes"),
        (400, "Strange", "S3 answers Strange at http://127.0.0.1"),
        (200, "", "S3 answers 500 at http://127.0.0.1.*; try again, or check AWS_ENDPOINT_URL"),
    ],
    ids=str,
)
def test_refusals_say_what_to_do(
    bucket: str,
    proxy: Proxy,
    status: int,
    code: str,
    message: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    s3._client.cache_clear()
    proxy.refuse(status, code, SECRET)
    caplog.set_level(logging.INFO)
    with pytest.raises(OSError, match=f"{message}.*'{bucket}/a'") as caught:
        list(s3.list_objects(f"{bucket}/a"))
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + caplog.text


def test_nobody_and_nothing_there(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:9")
    s3._client.cache_clear()
    with pytest.raises(OSError, match="http://127.0.0.1:9 cannot be reached .*; check AWS_ENDPOINT_URL") as caught:
        s3.head(f"{bucket}/a")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3._client.cache_clear()
    with pytest.raises(PermissionError, match="no credentials .*; set AWS_ACCESS_KEY_ID"):
        s3.head(f"{bucket}/a")
    s3._client.cache_clear()
    for name, value in (("AWS_PROFILE", "absent"), ("AWS_ENDPOINT_URL", "localhost")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(ValueError, match=f"{name}: "):
                s3.head(f"{bucket}/a")


@pytest.mark.parametrize("etag", [None, '"a"'])
def test_a_bucket_that_is_absent_is_no_other_writer(bucket: str, etag: str | None) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such bucket"):
        s3.replace_tagged(f"{bucket}x/a", b"1", etag)


def test_certificates_are_checked(bucket: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*make_ssl_devcert(str(tmp_path / "own"), host="localhost"))
    proxy.server.socket = context.wrap_socket(proxy.server.socket, server_side=True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url.replace("http://127.0.0.1", "https://localhost"))
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    s3._client.cache_clear()
    with pytest.raises(OSError, match="the certificate of https://localhost:.* is not trusted; set AWS_CA_BUNDLE"):
        s3.head(f"{bucket}/a")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "own.crt"))
    s3._client.cache_clear()
    with pytest.raises(FileNotFoundError):
        s3.head(f"{bucket}/a")


def test_browsers_are_told_what_an_object_is(bucket: str, put: Put) -> None:
    for key, kind in (("a.html", "text/html; charset=utf-8"), ("a.parquet", "application/octet-stream")):
        put(f"{bucket}/{key}")
        head = boto3.client("s3").head_object(Bucket=bucket.removeprefix("s3://"), Key=key)
        assert head["ContentType"] == kind
