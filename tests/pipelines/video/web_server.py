"""A real web server on this machine, with what strangers' servers do."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class WebServer:
    """What it serves, and how.

    Attributes:
        files: content by path.
        moved: where a path redirects to.
        statuses: statuses of the next answers; 0 hangs up.
        ranges: whether it knows ranges.
        length: whether it says how long a body is.
        cuts: number of the next bodies that break off half-way.
        requests: paths and ranges that were asked for.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    length: bool = True
    cuts: int = 0
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: WebServer

    def do_GET(self) -> None:
        own = self.owner
        asked = self.headers.get("Range")
        own.requests.append((self.path, asked))
        status = own.statuses.pop(0) if own.statuses else 200
        if status == 0:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if self.path in own.moved:
            self.send_response(302)
            self.send_header("Location", own.moved[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = own.files.get(self.path.partition("?")[0])
        if data is None or status != 200:
            self.send_response(404 if data is None else status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._send(data, asked)

    def _send(self, data: bytes, asked: str | None) -> None:
        own, start = self.owner, 0
        if asked and own.ranges:
            start = int(re.findall(r"\d+", asked)[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("ETag", f'"{hash(data)}"')
        if own.length:
            self.send_header("Content-Length", str(len(data) - start))
        body = data[start:]
        if own.cuts > 0:  # decided before whoever asks goes on
            own.cuts -= 1
            body = body[: -(-len(body) // 2)]
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def web_server() -> Iterator[WebServer]:
    """Starts a server, which runs while the block does."""
    owner = WebServer()
    handler = type("Handler", (_Handler,), {"owner": owner})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    owner.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield owner
    finally:
        server.shutdown()
        server.server_close()
