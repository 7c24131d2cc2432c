"""Videos on strangers' web servers: only public addresses, only so much, and never for ever."""

import errno
import hashlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from pipelines.storage.cloud import CHANGED, CloudObject
from pipelines.video.plan import VideoError

ATTEMPTS = 5
"""Attempts per request, and per download that makes no progress."""

CONNECT_S = 10.0
"""Longest time to connect, for each address of a host, seconds."""

SILENCE_S = 30.0
"""Silence after which a connection is closed, seconds."""

PAUSE_S = 1.0
"""Pause before the second attempt; it doubles from one to the next, seconds."""

SLOWEST = 10_000
"""Bytes a second; a download that is slower for a minute and on average is given up."""

_SCHEMES = ("http://", "https://")
_REDIRECTS = 5
_CHUNK_BYTES = 2**16
_PATIENCE_S = 60.0
_AWAY = frozenset({408, 425, 429, 500, 502, 503, 504})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_web(uri: str) -> bool:
    """Returns whether a URI is the address of a web server."""
    return uri.lower().startswith(_SCHEMES)


def check_url(url: str) -> None:
    """Checks the address of a video.

    Raises:
        ValueError: says what is wrong with it.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError as error:
        raise ValueError(f"is not a web address ({error}); give https://host/path") from None
    if not host or not url.isprintable() or " " in url:
        raise ValueError("is not a web address; give https://host/path, with %20 for a space")
    if parts.username is not None:
        raise ValueError("has a user name, which would be in the tables; give an address without")


@dataclass(frozen=True, kw_only=True)
class Web:
    """Downloads over HTTP and HTTPS. What is checked is the address that is connected to, not the one of a name.

    Attributes:
        max_bytes: largest video.
        internal: hosts that may have addresses that are not public. Only for code that knows these hosts: a manifest
            must not lead into the network that it is read in.

    All methods:

    Raises:
        VideoError: the video is absent, denied, too large, or elsewhere than on a public address.
        OSError: the server cannot be reached, answers that it is busy, or the content has changed.
    """

    max_bytes: int
    internal: frozenset[str] = frozenset()

    def head(self, url: str) -> CloudObject:
        """Returns size, 0 if the server does not say, and what stands for an ETag; reads no content."""
        with closing(self._open(url, 0)) as answer:
            return _described(url, answer)

    def download(self, url: str, file: BinaryIO, *, etag: str) -> None:
        """Writes a video's content to an empty file; resumes where its body breaks off, if the server can."""
        done, fruitless, begin = 0, 0, time.monotonic()
        while True:
            with closing(self._open(url, done)) as answer:
                entry = _described(url, answer)
                start, _ = _extent(answer)
                if entry.etag != etag or start > done:
                    raise OSError(*CHANGED, url)
                file.seek(start)
                end, trouble = self._copy(answer, file, start, begin)
            if trouble is None and entry.size in (0, end):
                file.truncate(end)
                return
            fruitless = 0 if end > done else fruitless + 1
            done = end
            if fruitless == ATTEMPTS:
                text = f"its body broke off at byte {done}, {ATTEMPTS} times ({trouble or 'too short'})"
                raise OSError(errno.EHOSTUNREACH, f"{text}; check the network", url)
            time.sleep(PAUSE_S * 2**fruitless)

    def _copy(
        self, answer: http.client.HTTPResponse, file: BinaryIO, start: int, begin: float
    ) -> tuple[int, str | None]:
        """Copies a body; returns where it ended, and what the trouble was."""
        done = start
        while True:
            try:
                chunk = answer.read1(_CHUNK_BYTES)
            except (http.client.HTTPException, OSError) as error:
                return done, type(error).__name__
            if not chunk:
                return done, None
            done += len(chunk)
            if done > self.max_bytes:
                raise self._too_large()
            file.write(chunk)
            seconds = time.monotonic() - begin
            if seconds > _PATIENCE_S and done < SLOWEST * seconds:
                raise VideoError(f"cannot be downloaded: slower than {SLOWEST // 1000} kB a second")

    def _open(self, url: str, start: int) -> http.client.HTTPResponse:
        """Asks for a video from a byte on; asks again if the server is away."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._follow(url, start)
            except (http.client.HTTPException, OSError) as error:
                if attempt == ATTEMPTS or isinstance(error, ssl.SSLCertVerificationError):
                    raise _explained(error, url) from None
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
        raise AssertionError

    def _follow(self, url: str, start: int) -> http.client.HTTPResponse:
        """Follows redirects, each of which is checked as the first address is."""
        at = url
        for _ in range(_REDIRECTS + 1):
            answer = self._request(at, start)
            if answer.status not in (301, 302, 303, 307, 308):
                return self._checked(answer, url)
            location = answer.headers.get("Location", "")
            answer.close()
            onward = urljoin(at, location)
            if not is_web(onward) or (at.lower().startswith("https") and not onward.lower().startswith("https")):
                raise VideoError(f"cannot be downloaded: it redirects to {location[:200]!r}, which is not https")
            try:
                check_url(onward)
            except ValueError as error:
                raise VideoError(f"cannot be downloaded: it redirects to an address that {error}") from None
            at = onward
        raise VideoError(f"cannot be downloaded: more than {_REDIRECTS} redirects")

    def _request(self, url: str, start: int) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        host = parts.hostname or ""
        connection = http.client.HTTPConnection(host, parts.port or (443 if parts.scheme == "https" else 80))
        connection.default_port = connection.port if not parts.port else 0  # named in the request only if given
        connection.sock = self._connect(parts, host, connection.port)
        path = quote(f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}", safe="%/:=&?~+!$,;'@()*[]")
        wanted = {"Accept-Encoding": "identity", "User-Agent": "openvis", "Connection": "close"}
        late = threading.Timer(_PATIENCE_S, _shut, (connection.sock,))  # of headers that come byte by byte
        late.start()
        try:
            connection.request("GET", path, headers=wanted | ({"Range": f"bytes={start}-"} if start else {}))
            return connection.getresponse()
        except BaseException:
            connection.close()
            raise
        finally:
            late.cancel()

    def _connect(self, parts: SplitResult, host: str, port: int) -> socket.socket:
        """Connects to the first address of a host that answers, if it is public."""
        trouble: OSError = OSError(errno.EHOSTUNREACH, "it has no address")
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            if not is_public(ipaddress.ip_address(str(address[0]).partition("%")[0])) and host not in self.internal:
                raise VideoError(
                    f"cannot be downloaded: the address of {host}, {address[0]}, is not public; download the video "
                    "yourself, and give its path"
                )
            plain = socket.socket(family, socket.SOCK_STREAM)
            try:
                plain.settimeout(CONNECT_S)
                plain.connect(address)
                plain.settimeout(SILENCE_S)
                if parts.scheme.lower() == "http":
                    return plain
                return ssl.create_default_context().wrap_socket(plain, server_hostname=host)
            except OSError as error:
                plain.close()
                trouble = error
        raise trouble

    def _checked(self, answer: http.client.HTTPResponse, url: str) -> http.client.HTTPResponse:
        status = answer.status
        if status in (200, 206):
            if _extent(answer)[1] <= self.max_bytes:
                return answer
            answer.close()
            raise self._too_large()
        answer.close()
        if status in _AWAY:
            raise OSError(errno.EHOSTUNREACH, f"the server answers {status}; try again later", url)
        if status in (404, 410):
            raise VideoError("file not found")
        denied = "access is denied" if status in (401, 403) else f"the server answers {status}"
        raise VideoError(f"cannot be downloaded: {denied}")

    def _too_large(self) -> VideoError:
        return VideoError(f"cannot be downloaded: it is larger than {self.max_bytes / 1e9:g} GB; raise --http_max_gb")


def is_public(address: Address) -> bool:
    """Returns whether an address is one of the internet, also where an IPv6 address stands for one of IPv4."""
    inner: list[Address | None] = []
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.ipv4_mapped:
            return is_public(address.ipv4_mapped)
    return address.is_global and not address.is_multicast and all(is_public(each) for each in inner if each)


def _described(url: str, answer: http.client.HTTPResponse) -> CloudObject:
    _, size = _extent(answer)
    validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or str(size)
    return CloudObject(uri=url, size=size, etag=hashlib.sha256(validator.encode()).hexdigest()[:32])


def _extent(answer: http.client.HTTPResponse) -> tuple[int, int]:
    """Returns the byte that a body begins at, and the size of the whole; 0 if the server does not say."""
    found = _RANGE.match(answer.headers.get("Content-Range", "")) if answer.status == 206 else None
    return (int(found[1]), int(found[2])) if found else (0, answer.length or 0)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # it has ended meanwhile
        connection.shutdown(socket.SHUT_RDWR)


def _explained(error: Exception, url: str) -> OSError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return OSError(errno.EPROTO, "the certificate of the server is not trusted", url)
    if isinstance(error, OSError) and error.filename == url:
        return error
    text = f"{urlsplit(url).hostname} cannot be reached ({type(error).__name__}); check the address and the network"
    return OSError(errno.EHOSTUNREACH, text, url)
