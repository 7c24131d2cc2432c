import ipaddress
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.storage.outage import is_away
from pipelines.video import web
from pipelines.video.download_cache import DownloadCache
from pipelines.video.plan import MachineError, VideoError
from pipelines.video.web import Web, check_url, is_public
from tests.pipelines.video.web_server import WebServer, web_server

CONTENT = np.random.default_rng(0).bytes(300_000)
HERE = Web(max_bytes=10**6, internal=frozenset({"127.0.0.1"}))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setattr(web, "PAUSE_S", 0.01)
    with web_server() as server:
        server.files = {"/a%20b/v.mp4": CONTENT}
        yield server


def content(url: str, client: Web = HERE, etag: str | None = None) -> bytes:
    with tempfile.TemporaryFile() as file:
        client.download(url, file, etag=etag or client.head(url).etag)
        file.seek(0)
        return file.read()


@pytest.mark.parametrize("fault", ["none", "no length", "cut", "cut, no ranges", "busy", "hangs up"])
def test_content_arrives_whole(server: WebServer, fault: str) -> None:
    server.length, server.ranges = fault != "no length", "no ranges" not in fault
    url = f"{server.url}/a b/v.mp4?key=x".replace(" ", "%20")
    etag = HERE.head(url).etag
    if fault == "busy":
        server.statuses = [503, 429, 500]
    elif fault == "hangs up":
        server.statuses = [0, 0]
    elif "cut" in fault:
        server.cuts = 12 if server.ranges else 2
    assert content(url, etag=etag) == CONTENT
    if fault == "cut":
        starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for _, asked in server.requests if asked]
        assert starts == sorted(starts)
        assert len(starts) == 12


def test_redirects_are_followed_and_checked(server: WebServer) -> None:
    server.files["/end"] = b"end"
    server.moved = {"/start": "/next", "/next": f"{server.url}/end", "/loop": "/loop"}
    assert content(f"{server.url}/start") == b"end"
    for path, target, message in (
        ("/file", "file:///etc/passwd", "redirects to 'file:///etc/passwd', which is not https"),
        ("/ftp", "ftp://127.0.0.1/a", "redirects to 'ftp://"),
        ("/user", "http://a:b@127.0.0.1/", "redirects to an address that has a user name"),
        ("/private", "http://10.0.0.1/", r"the address of 10.0.0.1, 10.0.0.1, is not public"),
        ("/metadata", "http://169.254.169.254/latest/meta-data", "the address of 169.254.169.254, .* is not public"),
        ("/local", "http://localhost:1/", "the address of localhost, .*, is not public"),
        ("/six", "http://[::ffff:127.0.0.1]/", "is not public"),
        ("/hex", "http://0x7f.1/", "the address of 0x7f.1, 127.0.0.1, is not public"),
    ):
        server.moved[path] = target
        with pytest.raises(VideoError, match=message):
            HERE.head(f"{server.url}{path}")
    with pytest.raises(VideoError, match="more than 5 redirects"):
        HERE.head(f"{server.url}/loop")


def test_no_address_in_this_network_is_asked(server: WebServer) -> None:
    with pytest.raises(VideoError, match=r"the address of 127.0.0.1, 127.0.0.1, is not public; download the video you"):
        Web(max_bytes=10**6).head(f"{server.url}/a%20b/v.mp4")
    assert not server.requests


def test_a_name_that_changes_its_address_is_not_followed(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is looked up once for a connection, and what is checked is what is connected to."""
    lookups = list[str]()

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        lookups.append(host)
        return [(2, 1, 6, "", ("93.184.216.34" if len(lookups) % 2 else "127.0.0.1", port))]

    connected = list[Any]()

    def connect(self: web.socket.socket, address: Any) -> None:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(web.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(web.socket.socket, "connect", connect)
    with pytest.raises(VideoError, match="the address of rebinding.test, 127.0.0.1, is not public"):
        Web(max_bytes=10).head("http://rebinding.test/v.mp4")
    assert connected == [("93.184.216.34", 80)]
    assert lookups == ["rebinding.test"] * 2


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("192.168.0.1", False),
        ("0.0.0.0", False),  # noqa: S104
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_what_is_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) == public


def test_a_video_that_is_too_large_is_given_up(server: WebServer) -> None:
    url = f"{server.url}/a%20b/v.mp4"
    small = Web(max_bytes=100_000, internal=HERE.internal)
    with pytest.raises(VideoError, match="it is larger than 0.0001 GB; raise --http_max_gb"):
        small.head(url)
    server.length = False
    with pytest.raises(VideoError, match="it is larger than 0.0001 GB"):
        content(url, small)


def test_slow_and_silent_servers_are_given_up(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{server.url}/a%20b/v.mp4"
    etag = HERE.head(url).etag
    monkeypatch.setattr(web, "SLOWEST", 10**9)
    monkeypatch.setattr(web, "_PATIENCE_S", 1e-9)
    monkeypatch.setattr(web, "_shut", lambda connection: None)
    with pytest.raises(VideoError, match="slower than 1000000 kB a second"):
        content(url, etag=etag)
    with web.socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(web, "SILENCE_S", 0.1)
        monkeypatch.setattr(web, "ATTEMPTS", 2)
        with pytest.raises(OSError, match="127.0.0.1 cannot be reached .TimeoutError.; check the address") as caught:
            HERE.head(f"http://127.0.0.1:{silent.getsockname()[1]}/v.mp4")
    assert is_away(caught.value)


def test_what_a_server_refuses(server: WebServer) -> None:
    url = f"{server.url}/a%20b/v.mp4"
    etag = HERE.head(url).etag
    for status, message in ((403, "access is denied"), (418, "the server answers 418"), (404, "file not found")):
        server.statuses = [status]
        with pytest.raises(VideoError, match=message):
            HERE.head(url)
    server.statuses = [503] * web.ATTEMPTS
    with pytest.raises(OSError, match="the server answers 503; try again later") as caught:
        HERE.head(url)
    assert is_away(caught.value)
    server.files["/a%20b/v.mp4"] = CONTENT[1:]
    with pytest.raises(OSError, match="it changed while it was read; run again"):
        content(url, etag=etag)


def test_certificates_are_checked(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ssl.SSLCertVerificationError

    monkeypatch.setattr(web.ssl.SSLContext, "wrap_socket", refuse)
    with pytest.raises(OSError, match="the certificate of the server is not trusted"):
        HERE.head(server.url.replace("http:", "https:"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://", "is not a web address; give https://host/path"),
        ("http://[::1/a", "is not a web address"),
        ("http://a:b/c", "is not a web address"),
        ("http://a..b/c", "is not a web address"),
        ("http://host/a b", "is not a web address; .* with %20 for a space"),
        ("http://host/a\nb", "is not a web address"),
        ("http://user:secret@host/a", "has a user name"),
    ],
)
def test_what_is_no_address(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_url(url)


def test_the_cache_downloads_from_the_web_where_it_may(server: WebServer, tmp_path: Path) -> None:
    url = f"{server.url}/a%20b/v.mp4?token=x"
    cache = DownloadCache(folder=str(tmp_path / "cache"), web=HERE)
    version = cache.version(url)
    for _ in range(2):
        with cache.open(url, version) as path:
            assert path.endswith("content.mp4")
            assert Path(path).read_bytes() == CONTENT
    assert len(server.requests) == 3  # two answers of which only the head was read
    with pytest.raises(VideoError, match="is on the web, which only jobs.label reads, with --allow_http true"):
        DownloadCache(folder=str(tmp_path / "cache")).version(url)
    with (
        pytest.raises(MachineError, match="cannot be downloaded: it has changed since it was listed"),
        cache.open(url, "another"),
    ):
        pass
