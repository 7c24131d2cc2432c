"""Pictures for the page: crops of tracks, and frames of videos that a browser cannot play. Decoders run by themselves.

Decoding happens in child processes with limits, so that a hostile or damaged video takes nothing else down.
"""

import io
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, UInt8
from PIL import Image
from pycocotools import mask as coco

from pipelines.video.decode import FrameBatch, decode
from pipelines.video.download_cache import DownloadCache
from pipelines.video.index import plan_video
from pipelines.video.isolation import IsolatedProcess, isolated
from pipelines.video.names import local_path
from pipelines.video.options import Limits, Sampling
from pipelines.video.plan import MachineError, Segment, VideoError, VideoInfo, VideoPlan

CROP = 256
"""Longer side of a crop, pixels."""

FRAME = 960
"""Longer side of a frame, pixels; smaller frames keep their size."""

_MARGIN = 0.2  # of a crop around its box, as a part of the box's longer side
_DIM = 0.55  # brightness of what is not the object
_LIMITS = Limits(silence_s=20.0, total_s=120.0)
_REFUSED_S = 60.0  # for which a frame that could not be read is not tried again

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class Recent(Generic[_K, _V]):
    """The values that were used last, up to a total size. Methods may be called by several threads.

    Args:
        limit: largest total size.
        size: returns the size of a value.
    """

    def __init__(self, limit: int, size: Callable[[_V], int] = lambda value: 1) -> None:
        self._limit, self._size = limit, size
        self._values: OrderedDict[_K, _V] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()

    def get(self, key: _K, make: Callable[[], _V]) -> _V:
        """Returns the value of a key; makes it if it is not held."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = value
                self._total += self._size(value)
            while self._total > self._limit and len(self._values) > 1:
                self._total -= self._size(self._values.popitem(last=False)[1])
        return value

    def forget(self, is_old: Callable[[_V], bool]) -> None:
        """Drops some values."""
        with self._lock:
            for key in [key for key, value in self._values.items() if is_old(value)]:
                self._total -= self._size(self._values.pop(key))


class Frames:
    """Decodes some frames of videos, and remembers where in their files the last videos have them.

    Methods may be called by several threads.

    Args:
        limits: of the process that decodes.
    """

    def __init__(self, limits: Limits = _LIMITS) -> None:
        self._limits = limits
        self._cache = DownloadCache()
        self._plans: Recent[tuple[str, str], VideoPlan] = Recent(64)
        self._refused: dict[tuple[str, int], tuple[float, str]] = {}  # when, and why, by video and frame
        self._lock = threading.Lock()

    def read(self, uri: str, frame: int) -> UInt8[np.ndarray, "H W 3"]:
        """Returns a frame of a video, upright. One that could not be read is tried again after a minute.

        Raises:
            VideoError: the video is missing or cannot be read, or has no such frame.
        """
        with self._lock:
            at, reason = self._refused.get((uri, frame), (-math.inf, ""))
        if time.monotonic() < at + _REFUSED_S:
            raise VideoError(reason)
        try:
            found = list(self.each(uri, lambda plan: np.array([frame])))
            if not found:
                raise VideoError(f"frame {frame} cannot be decoded")
        except VideoError as error:
            self._refuse(uri, frame, str(error))
            raise
        return np.asarray(found[0].frames[0])

    def _refuse(self, uri: str, frame: int, reason: str) -> None:
        now = time.monotonic()
        with self._lock:
            recent = {key: value for key, value in self._refused.items() if now < value[0] + _REFUSED_S}
            self._refused = recent | {(uri, frame): (now, reason)}

    def each(self, uri: str, wanted: Callable[[VideoPlan], Int64[np.ndarray, " n"]]) -> Iterator[FrameBatch]:
        """Yields some frames of a video, upright, one by one and in order, without those that cannot be decoded.

        Args:
            uri: the video.
            wanted: returns the indices of the frames.

        Raises:
            VideoError: the video is missing or cannot be read.
        """
        try:
            version = self._cache.version(uri)
            with self._cache.open(local_path(uri), version) as path, isolated(self._limits) as process:
                plan = self._plans.get((uri, version), partial(_planned, process, path))
                frames = wanted(plan)
                for segment in plan.segments:
                    found = np.isin(segment.frames, frames)
                    if found.any():
                        cut = {name: getattr(segment, name)[found] for name in ("frames", "times_s", "pts")}
                        yield from process.run(_batches, path, plan.info, replace(segment, **cut), kinds=(FrameBatch,))
        except MachineError as error:
            raise VideoError(str(error)) from error


def _planned(process: IsolatedProcess, path: str) -> VideoPlan:
    (plan,) = process.run(_plan, path, kinds=(VideoPlan, VideoInfo, Segment))
    return plan


def _plan(path: str) -> Iterator[VideoPlan]:
    yield plan_video(path, Sampling(), 1)


def _batches(path: str, info: VideoInfo, segment: Segment) -> Iterator[FrameBatch]:
    yield from decode(path, info, segment, size=None, batch_size=1)


def best_mask(masks: pa.Table) -> dict[str, Any]:
    """Returns the mask of a track with the largest score × area, the first of equal ones."""
    seen = masks["score"].to_numpy().astype(np.float64) * masks["area"].to_numpy()
    row: dict[str, Any] = masks.slice(int(np.nan_to_num(seen).argmax()), 1).to_pylist()[0]
    return row


def crop(frame: UInt8[np.ndarray, "H W 3"], mask: dict[str, Any]) -> bytes:
    """Returns a JPEG of what a mask shows, with a margin, in which all else is darker.

    Raises:
        VideoError: the mask is of another size than the frame.
    """
    height, width = frame.shape[:2]
    if tuple(mask["rle"]["size"]) != (height, width):
        raise VideoError(f"is {height} x {width} pixels, its masks are {' x '.join(map(str, mask['rle']['size']))}")
    margin = round(_MARGIN * max(mask["width"], mask["height"])) + 2
    left, top = max(0, mask["x"] - margin), max(0, mask["y"] - margin)
    right, bottom = mask["x"] + mask["width"] + margin, mask["y"] + mask["height"] + margin
    shown = coco.decode({"size": [height, width], "counts": mask["rle"]["counts"].encode()})[top:bottom, left:right]
    pixels = frame[top:bottom, left:right]
    dimmed = np.where(shown[..., None] > 0, pixels, (pixels * _DIM).astype(np.uint8))
    return jpeg(dimmed, CROP, enlarge=True)


def jpeg(pixels: UInt8[np.ndarray, "H W 3"], side: int, *, enlarge: bool = False) -> bytes:
    """Returns a JPEG whose longer side is at most `side` pixels, or just that if it may be enlarged."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    scale = scale if enlarge else min(1.0, scale)
    image = Image.fromarray(pixels).resize((max(1, round(width * scale)), max(1, round(height * scale))))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()
