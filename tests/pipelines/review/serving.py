"""A server that runs beside a test, and a client of it."""

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from pipelines.review.server import Server
from pipelines.review.session import Review


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server answered."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True)
class Client:
    """Asks a server, with its token unless told otherwise."""

    root: str
    token: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """What a person opens."""
        return f"{self.root}/?{urlencode({'token': self.token})}"

    def get(
        self, path: str, *, headers: Mapping[str, str] | None = None, token: str | None = None, **query: Any
    ) -> Answer:
        words = urlencode({"token": self.token if token is None else token} | query)
        return self._send(urllib.request.Request(f"{self.root}/{path}?{words}", headers=dict(headers or {})))  # noqa: S310 - as below

    def post(self, path: str, body: Any, kind: str = "application/json", **query: Any) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        words = urlencode({"token": self.token} | query)
        request = urllib.request.Request(f"{self.root}/{path}?{words}", data=data, headers={"Content-Type": kind})  # noqa: S310
        return self._send(request)

    def decide(self, *decisions: Mapping[str, Any], reviewer: str = "ann") -> Answer:
        return self.post("api/decide", {"decisions": list(decisions), "reviewer": reviewer})

    def found(self, **wanted: Any) -> list[tuple[str, int]]:
        """The tracks that a filter finds, in order."""
        found = self.get("api/find", **wanted).json()
        rows = self.get("api/rows", found=found["found"], offset=0, limit=500).json() if found["total"] else []
        return [(row["video_id"], row["track_id"]) for row in rows]

    def _send(self, request: urllib.request.Request) -> Answer:
        try:
            with urllib.request.urlopen(request) as response:  # noqa: S310 - our own server
                return Answer(status=response.status, body=response.read(), headers=response.headers)
        except urllib.error.HTTPError as error:
            return Answer(status=error.code, body=error.read(), headers=error.headers)


@contextmanager
def served(review: Review, port: int = 0) -> Iterator[Client]:
    """Serves a review while the block runs."""
    server, loop = Server(review), asyncio.new_event_loop()
    runner = web.AppRunner(server.app(), shutdown_timeout=0.1)

    async def begin() -> str:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        return site.name.rstrip("/") if port else f"http://127.0.0.1:{runner.addresses[0][1]}"

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    root = asyncio.run_coroutine_threadsafe(begin(), loop).result(30)
    try:
        yield Client(root=root, token=server.token)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
