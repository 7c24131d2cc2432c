"""A real S3 endpoint, and a proxy before it that counts requests and spoils some of them."""

import http.client
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from moto.s3.models import s3_backends
from moto.s3.responses import S3Response

SECRET = "secret-that-nobody-may-see"
FAULTS = ("500", "503", "reset", "cut", "stall")
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


def start_server() -> tuple[str, Callable[[], None]]:
    """Returns the endpoint of a new, empty S3, and what stops it."""
    _make_puts_atomic()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request otherwise
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}", server.stop


def _make_puts_atomic() -> None:
    """Lets no request come between a put's condition and its write, as S3 does; moto's threads would."""
    put, lock = S3Response.put_object, threading.Lock()
    if getattr(put, "is_atomic", False):
        return

    def atomic(self: S3Response) -> Any:
        with lock:
            return put(self)

    atomic.is_atomic = True  # type: ignore[attr-defined]
    S3Response.put_object = atomic


class Outage:
    """A real S3 in a process of its own, which can stop answering.

    Attributes:
        url: its endpoint.
        stops: how often it stopped.
    """

    def __init__(self) -> None:
        code = (
            "import threading; from tests.pipelines.storage.s3_server import start_server; "
            "print(start_server()[0], flush=True); threading.Event().wait()"
        )
        self.process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.url = self.process.stdout.readline().strip()
        self.stops = 0

    def begin(self, seconds: float | None = None) -> None:
        """Stops the process, which resumes after this time, or when told to, with all that it held."""
        self.stops += 1
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        if seconds is not None:
            threading.Timer(seconds, self.resume).start()

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def fill(bucket: str, keys: Iterable[str]) -> None:
    """Puts empty objects into a bucket of the server, without a request for each."""
    for key in keys:
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket.removeprefix("s3://"), key, b"")


class Proxy:
    """Passes requests on to an endpoint.

    Attributes:
        share: Of the requests that each fault spoils.
        requests: Method and path of all that came.
        ranges: That they asked for, if they did.
        sent: Bytes of all bodies that were answered to GET.
        hidden: Headers and parts of queries that it hides from the endpoint, as some servers ignore them.
        spoiled: The faults so far.
        before: Called with a request's method and path before it is passed on.
    """

    def __init__(self, endpoint: str) -> None:
        self.target = endpoint.removeprefix("http://")
        self.share: Mapping[str, float] = {}
        self.requests: list[tuple[str, str]] = []
        self.ranges: list[str] = []
        self.sent = 0
        self.hidden: set[str] = set()
        self.spoiled: list[str] = []
        self.before: Callable[[str, str], object] = lambda method, path: None
        self.random = np.random.default_rng(0)
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def fault(self) -> str | None:
        """What befalls the next request."""
        dice = self.random.random()
        for fault, share in self.share.items():
            dice -= share
            if dice < 0:
                self.spoiled.append(fault)
                return fault
        return None

    def count(self, method: str, part: str = "") -> int:
        """Requests of a method whose path has this part."""
        return sum(method == each and part in path for each, path in self.requests)

    def refuse(self, status: int, code: str, secret: str = "", methods: Sequence[str] = ("GET", "POST")) -> None:
        """All that is answered from now on; with a secret in the text, as a careless server might."""

        def answer(handler: _Handler, *_: object) -> None:
            text = f"<Error><Code>{code}</Code><Message>bad {secret}</Message></Error>" if code else "<html>hello"
            handler.answer(status, [], text.encode())

        for method in methods:
            setattr(self.server.RequestHandlerClass, f"do_{method}", answer)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Proxy

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.owner.requests.append((self.command, self.path))
        self.owner.ranges += self.headers.get_all("Range", [])
        fault = self.owner.fault()
        if fault == "reset":
            self.hang_up()
        elif fault in ("500", "503"):
            self.answer(int(fault), [], SLOW_DOWN if fault == "503" else b"")
        else:
            self.owner.before(self.command, self.path)
            connection = http.client.HTTPConnection(self.owner.target)
            headers = {name: value for name, value in self.headers.items() if name not in self.owner.hidden}
            path = self.path
            for part in self.owner.hidden:
                path = re.sub(rf"&{part}\b", "", path)
            connection.request(self.command, path, body, headers)
            response = connection.getresponse()
            data = response.read()
            connection.close()
            if fault and self.command != "GET":
                self.hang_up()  # done, but nobody hears of it
            else:
                self.answer(response.status, response.getheaders(), data, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on  # noqa: N815

    def answer(self, status: int, headers: Sequence[tuple[str, str]], data: bytes, fault: str | None = None) -> None:
        self.send_response_only(status)
        left_out = ("transfer-encoding", "connection", "server", "date")
        if self.command != "HEAD":
            left_out += ("content-length",)
            self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            if name.lower() not in left_out:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = data if fault is None else data[: len(data) // 2]
        self.owner.sent += len(sent) if self.command == "GET" else 0
        self.wfile.write(sent)
        if fault == "cut":
            self.hang_up()
        elif fault == "stall":
            self.wfile.flush()
            self.connection.settimeout(60)
            self.connection.recv(1)  # until the other side gives up
            self.close_connection = True

    def hang_up(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass
