"""A static host that runs beside a test, and keeps what it was asked for."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web


@dataclass(frozen=True, kw_only=True)
class StaticHost:
    """A host; `asked` has the path and the bytes of each answer."""

    url: str
    asked: list[tuple[str, int]] = field(default_factory=list)


@contextmanager
def hosted(folder: Path) -> Iterator[StaticHost]:
    """Serves a folder below /some/where/, as GitHub Pages does."""
    host: list[StaticHost] = []

    async def note(request: web.Request, response: web.StreamResponse) -> None:
        host[0].asked.append((request.path, response.content_length or 0))

    async def index(_: web.Request) -> web.FileResponse:
        return web.FileResponse(folder / "index.html")

    app = web.Application()
    app.on_response_prepare.append(note)
    app.router.add_get("/some/where/", index)
    app.router.add_static("/some/where/", folder)
    loop, runner = asyncio.new_event_loop(), web.AppRunner(app, shutdown_timeout=0.1)

    async def begin() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    port = asyncio.run_coroutine_threadsafe(begin(), loop).result(30)
    host.append(StaticHost(url=f"http://127.0.0.1:{port}/some/where/"))
    try:
        yield host[0]
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
