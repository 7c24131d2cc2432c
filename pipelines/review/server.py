"""The server of the review page, on this machine only unless another address is given.

Every answer needs the token of the opened URL. A client names videos and tracks by their ids; what is read from disk is
what the archive's tables name, never a path from a client.
"""

import asyncio
import hmac
import json
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from pipelines.review.catalogue import Filter
from pipelines.review.media import is_playable, send_video
from pipelines.review.search import AbsentError
from pipelines.review.session import Review
from pipelines.video.plan import VideoError

T = TypeVar("T")

PAGE = Path(__file__).parent / "page"

_LOG = logging.getLogger(__name__)
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_BODY_BYTES = 32 * 2**20  # of a dropped image
_MOST_ROWS = 500  # of one answer
_DECODERS = 3  # pictures made at a time; decisions do not wait for them
_REFRESH_S = 5.0
_NAME = 100  # characters of a reviewer's name at most

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer, unless it has others."""

_NO_FILTERS = {"token", "text", "like"}
_KEPT = {"Cache-Control": "private, max-age=3600"}  # of what never changes under its URL


class Server:
    """Serves a review.

    Args:
        review: the review.

    Attributes:
        token: what a client must know.
    """

    def __init__(self, review: Review) -> None:
        self.review = review
        self.token = secrets.token_urlsafe(24)
        self._decoders = ThreadPoolExecutor(_DECODERS, "picture")
        self.cookie = f"openvis-review-{secrets.token_hex(4)}"  # browsers share cookies among ports
        self._files = {
            f"/{file.relative_to(PAGE).as_posix()}": (file.read_bytes(), _TYPES[file.suffix])
            for file in PAGE.rglob("*")
            if file.suffix in _TYPES
        }

    def app(self) -> web.Application:
        """Returns the application."""
        app = web.Application(middlewares=[self._guarded], client_max_size=_BODY_BYTES)
        app.add_routes(
            [
                web.get("/api/archive", self._json(self._archive)),
                web.get("/api/state", self._json(self._state)),
                web.get("/api/find", self._json(self._find)),
                web.post("/api/find", self._json(self._find_like_image)),
                web.get("/api/rows", self._json(self._rows)),
                web.get("/api/video", self._json(self._video)),
                web.get("/api/masks", self._json(self._masks)),
                web.post("/api/decide", self._json(self._decide)),
                web.post("/api/follow", self._json(self._follow)),
                web.get("/api/followed", self._json(self._followed)),
                web.post("/api/unfollow", self._json(self._unfollow)),
                web.post("/api/keep", self._json(self._keep)),
                web.get("/api/crop", self._crop),
                web.get("/api/frame", self._frame),
                web.get("/api/media", self._media),
                web.get("/{path:.*}", self._page),
            ]
        )
        app.on_response_prepare.append(_add_headers)
        app.cleanup_ctx.append(self._background)
        return app

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refuses clients without the token; turns errors into answers."""
        given = request.query.get("token") or request.cookies.get(self.cookie, "")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            response: web.StreamResponse = _refusal(
                403, "this page needs the token of the URL that jobs.review printed; open that URL"
            )
        else:
            try:
                response = await handler(request)
            except AbsentError as error:
                response = _refusal(404, str(error))
            except VideoError as error:
                response = _refusal(404, f"the video cannot be read: {error}")
            except ValueError as error:
                response = _refusal(400, str(error))
            except OSError as error:
                response = _refusal(503, f"{error.filename}: {error.strerror}" if error.filename else str(error))
            except web.HTTPException as error:
                response = _refusal(error.status, error.reason)
            except Exception:  # the page shows it, and the server goes on
                _LOG.exception("review: %s", request.path)
                response = _refusal(500, "the server made a mistake, and has printed it; try again")
            if request.query.get("token"):
                response.set_cookie(self.cookie, self.token, httponly=True, samesite="Strict")
        return response

    def _json(
        self, answer: Callable[[web.Request], Awaitable[object]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            value = await answer(request)
            return web.Response(text=await _elsewhere(json.dumps, value), content_type="application/json")

        return handle

    async def _archive(self, _: web.Request) -> object:
        return await _elsewhere(self.review.archive)

    async def _state(self, _: web.Request) -> object:
        return self.review.state()

    async def _find(self, request: web.Request) -> object:
        text, like = request.query.get("text") or None, _whole(request.query, "like")
        return await _elsewhere(self.review.find, _filter(request.query), text=text, like=like)

    async def _find_like_image(self, request: web.Request) -> object:
        image = await request.read()
        return await _elsewhere(self.review.find_like_image, _filter(request.query), image)

    async def _rows(self, request: web.Request) -> object:
        offset, limit = (_whole(request.query, name) or 0 for name in ("offset", "limit"))
        if offset < 0 or not 0 < limit <= _MOST_ROWS:
            raise ValueError(f"limit: expected 1 to {_MOST_ROWS}, and no offset below 0")
        return await _elsewhere(self.review.rows, request.query.get("found", ""), offset, limit)

    async def _video(self, request: web.Request) -> object:
        return await _elsewhere(self.review.video, request.query.get("id", ""), request.query.get("followed"))

    async def _masks(self, request: web.Request) -> object:
        first, last = (_whole(request.query, name) or 0 for name in ("first", "last"))
        video_id, followed = request.query.get("id", ""), request.query.get("followed")
        return await _elsewhere(self.review.masks, video_id, first, last, followed)

    async def _decide(self, request: web.Request) -> object:
        body = await _body(request)
        if not isinstance(body.get("decisions"), list):
            raise ValueError("decisions: give a list")
        reviewer = self._reviewer(body)
        # A decision that has begun to be stored is stored, also if the page is closed.
        return await asyncio.shield(_elsewhere(self.review.decide, body["decisions"], reviewer))

    async def _follow(self, request: web.Request) -> object:
        body = await _body(request)
        return await _elsewhere(self.review.follow, str(body.get("video_id")), str(body.get("prompt")))

    async def _followed(self, request: web.Request) -> object:
        return self.review.followed(request.query.get("followed", ""))

    async def _unfollow(self, request: web.Request) -> object:
        return self.review.unfollow(str((await _body(request)).get("followed")))

    async def _keep(self, request: web.Request) -> object:
        body = await _body(request)
        return await asyncio.shield(_elsewhere(self.review.keep, str(body.get("followed")), self._reviewer(body)))

    def _reviewer(self, body: Mapping[str, Any]) -> str:
        return str(body.get("reviewer") or self.review.reviewer).strip()[:_NAME]

    async def _crop(self, request: web.Request) -> web.Response:
        track = _whole(request.query, "track")
        return await self._picture(self.review.crop, request.query.get("id", ""), -1 if track is None else track)

    async def _frame(self, request: web.Request) -> web.Response:
        frame = _whole(request.query, "frame") or 0
        return await self._picture(self.review.frame, request.query.get("id", ""), frame)

    async def _picture(self, make: Callable[[str, int], bytes], video_id: str, number: int) -> web.Response:
        image = await asyncio.get_running_loop().run_in_executor(self._decoders, make, video_id, number)
        return web.Response(body=image, content_type="image/jpeg", headers=_KEPT)

    async def _media(self, request: web.Request) -> web.StreamResponse:
        uri = await _elsewhere(self.review.uri, request.query.get("id", ""))
        if not is_playable(uri):
            raise AbsentError("video: no browser plays this format; ask for its frames")
        return await send_video(request, uri)

    async def _page(self, request: web.Request) -> web.Response:
        path = "/index.html" if request.path == "/" else request.path
        if path not in self._files:
            raise AbsentError(f"there is no {path}")
        body, kind = self._files[path]
        return web.Response(body=body, content_type=kind, charset="utf-8")

    async def _background(self, _: web.Application) -> AsyncIterator[None]:
        """Warms up, then keeps up with other reviewers and with new labels, while the server runs."""
        task = asyncio.create_task(self._keep_up())
        yield
        self._decoders.shutdown(wait=False, cancel_futures=True)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def _keep_up(self) -> None:
        await asyncio.to_thread(self.review.warm_up)
        while True:
            await asyncio.sleep(_REFRESH_S)
            try:
                await asyncio.to_thread(self.review.refresh)
            except (OSError, ValueError) as error:  # storage may be back at the next attempt
                _LOG.warning("review: what is new could not be read: %s", error)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)


async def _body(request: web.Request) -> dict[str, Any]:
    """Returns the JSON object that was sent."""
    if request.content_type != "application/json":  # what a form of another site cannot send
        raise ValueError("body: give JSON")
    body = json.loads(await request.read())
    if not isinstance(body, dict):
        raise ValueError("body: give a JSON object")
    return body


async def _elsewhere(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    return await asyncio.to_thread(function, *arguments, **options)


def _refusal(status: int, reason: str) -> web.Response:
    return web.Response(status=status, text=json.dumps({"error": reason}), content_type="application/json")


def _filter(values: Mapping[str, str]) -> Filter:
    """Returns the filter of a query."""
    kinds = {field.name: field.type for field in fields(Filter)}
    if unknown := set(values) - kinds.keys() - _NO_FILTERS:
        raise ValueError(f"{min(unknown)}: is not a filter; choose from {', '.join(kinds)}")
    given: dict[str, Any] = {name: value for name, value in values.items() if value and name in kinds}
    for name, kind in (("min_score", float), ("max_score", float), ("min_frames", int)):
        if name in given:
            try:
                given[name] = kind(given[name])
            except ValueError:
                raise ValueError(f"{name}: is {given[name]!r}; give a number") from None
    if given.setdefault("duplicates", "false") not in ("true", "false"):
        raise ValueError(f"duplicates: is {given['duplicates']!r}; give true or false")
    return Filter(**given | {"duplicates": given["duplicates"] == "true"})


def _whole(values: Mapping[str, str], name: str) -> int | None:
    if not values.get(name):
        return None
    try:
        return int(values[name])
    except ValueError:
        raise ValueError(f"{name}: is {values[name]!r}; give a whole number") from None
