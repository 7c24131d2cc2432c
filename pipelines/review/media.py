"""Videos for the browser, in the ranges that it asks for, from a local file or from the cloud."""

import asyncio
import logging
import os
from functools import partial
from pathlib import Path

from aiohttp import web

from pipelines.storage import objects
from pipelines.video.names import local_path, suffix

TYPES = {
    ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".mov": "video/mp4",
    ".mp4": "video/mp4",
    ".ogv": "video/ogg",
    ".webm": "video/webm",
}
"""Containers that a browser may be able to play, and how each is announced; no other file is ever sent."""

_LOG = logging.getLogger(__name__)
_CHUNK = 2**20  # bytes of an object in memory at a time


def is_playable(uri: str) -> bool:
    """Returns whether a browser may be able to play a video; whether it can depends on the codec, too."""
    return suffix(uri) in TYPES


async def send_video(request: web.Request, uri: str) -> web.StreamResponse:
    """Answers with a video, or with a range of it. If reading breaks off, so does the connection.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it cannot be read.
    """
    headers = {"Content-Type": TYPES[suffix(uri)], "Accept-Ranges": "bytes"}
    if objects.is_remote(uri):
        return await _send_object(request, uri, headers)
    path = local_path(uri)
    if not os.path.isfile(path):
        raise FileNotFoundError(2, "the file is missing", uri)
    return web.FileResponse(Path(path), headers=headers)


async def _send_object(request: web.Request, uri: str, headers: dict[str, str]) -> web.StreamResponse:
    entry = await asyncio.to_thread(objects.head, uri)
    start, stop, status = _wanted(request, entry.size)
    if start >= stop and entry.size:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{entry.size}"})
    response = web.StreamResponse(status=status, headers=headers | {"Content-Length": str(stop - start)})
    if status == web.HTTPPartialContent.status_code:
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{entry.size}"
    await response.prepare(request)
    if request.method != "HEAD":
        read = partial(objects.cloud_of(uri).read_range, uri, etag=entry.etag)
        for begin in range(start, stop, _CHUNK):
            try:
                data = await asyncio.to_thread(read, begin, min(begin + _CHUNK, stop))
            except OSError as error:
                _LOG.warning("review: %s cannot be read: %s", uri, error)
                if request.transport:
                    request.transport.close()  # an answer that says so would be taken for bytes of the video
                return response
            await response.write(data)
    await response.write_eof()
    return response


def _wanted(request: web.Request, size: int) -> tuple[int, int, int]:
    """Returns the first byte, the one after the last, and the status of the answer."""
    try:
        asked = request.http_range
    except ValueError:
        return 0, size, 200
    if asked.start is None and asked.stop is None:
        return 0, size, 200
    start = asked.start or 0
    if start < 0:
        return max(0, size + start), size, 206
    return start, min(size if asked.stop is None else asked.stop, size), 206
