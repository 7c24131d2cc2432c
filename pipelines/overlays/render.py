"""Renders overlays: a labelled video in which every object has a mask, contour and name in its track's colour."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from openvis_model import rle
from pipelines.overlays.contact_sheet import Tile
from pipelines.overlays.drawing import DrawnObject, draw_scaled
from pipelines.overlays.encoder import encoder
from pipelines.storage.files import written_whole
from pipelines.video.decode import decode
from pipelines.video.index import plan_video
from pipelines.video.options import Sampling
from pipelines.video.plan import VideoError

_MIN_HEIGHT = 360  # pixels; lower frames are enlarged to keep labels readable
_MAX_SIDE = 16384  # pixels, of H.264
_TILE = 480  # longer side of a contact sheet's pictures, pixels
_HOLD = 1.5  # sampling periods for which masks stay if no labelled frame follows; periods may vary by a frame


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """What `render_video` wrote.

    Attributes:
        frames: number of frames.
        height: height of the written frames, pixels.
        width: width of the written frames, pixels.
        tiles: the requested number of overlays, evenly spaced in time; fewer if the video has fewer frames.
        error: how many frames could not be decoded; None if all could.
    """

    frames: int
    height: int
    width: int
    tiles: tuple[Tile, ...]
    error: str | None


def render_video(
    video: Path,
    tracks: pa.Table,
    masks: pa.Table,
    output: str | Path,
    *,
    min_score: float = 0.0,
    most: int | None = None,
    tiles: int = 0,
    name: str | None = None,
    progress: Callable[[int, int], None] = lambda done, expected: None,
) -> Rendered:
    """Writes a labelled video with its objects drawn in: H.264, 4:2:0, at the original speed, without sound.

    A frame without labels of its own shows the masks of the latest labelled frame. Frames lower than 360 pixels are
    enlarged by a whole factor. Odd sizes repeat the last row or column. Only one frame is in memory at a time. `output`
    appears once it is complete, and replaces an existing file.

    Args:
        video: the file, or a folder of frame images.
        tracks: rows of the `tracks` table for this video.
        masks: rows of the `masks` table for this video.
        output: an .mp4 file, local or in the cloud; its folder is created if missing.
        min_score: omits tracks with a lower score.
        most: largest number of objects per frame, those with the best tracks; None shows all.
        tiles: number of overlays to return for `contact_sheet`.
        name: name of the video on the contact sheet; by default that of the file.
        progress: called with the number of finished frames and the expected total.

    Raises:
        ValueError: if the video cannot be decoded, masks differ in size from its frames, or `output` is the video
            itself, does not end with .mp4 or cannot be written.
    """
    local = str(output).removeprefix("file://")
    if os.path.exists(local) and video.exists() and os.path.samefile(local, video):
        raise ValueError(f"output: {output} is the video itself; choose another file")
    labels = _Labels(tracks, masks, min_score, most)
    try:
        plan = plan_video(str(video), Sampling(), None)
    except VideoError as error:
        raise ValueError(f"video: cannot read {video} ({error})") from error
    info, done = plan.info, 0
    size, tile_size = (
        _scaled(info.height, info.width, scale)
        for scale in (_enlargement(info.height, info.width), _TILE / max(info.height, info.width))
    )
    sheet = {info.frames * (2 * number + 1) // (2 * tiles) for number in range(tiles)}
    shown = []
    rate = max(Fraction(info.fps).limit_denominator(1001), Fraction(1, 1001))
    with written_whole("output", str(output), ".mp4") as path, encoder(path, rate, size) as encode:
        for batch in decode(str(video), info, plan.segments[0], size=None, batch_size=1):
            frame, index, time_s = batch.frames[0], int(batch.frame[0]), float(batch.time_s[0])
            objects = labels.at(index, time_s)
            encode(draw_scaled(frame, objects, size), time_s)
            if index in sheet:
                shown.append(
                    Tile(image=draw_scaled(frame, objects, tile_size), video=name or video.name, time_s=time_s)
                )
            done += 1
            progress(done, info.frames)
        if not done:
            raise ValueError(f"video: cannot read {video} (none of its {info.frames} frames can be decoded)")
    lost = info.frames - done
    height, width = (side + side % 2 for side in size)
    return Rendered(
        frames=done,
        height=height,
        width=width,
        tiles=tuple(shown),
        error=f"{lost} of {info.frames} frames could not be decoded" if lost else None,
    )


def render_frame(video: Path, frame: int, objects: Sequence[DrawnObject]) -> UInt8[np.ndarray, "h w 3"]:
    """Renders one frame of a video, the longer side 480 pixels; decodes from the key frame before it.

    Args:
        video: the file, or a folder of frame images.
        frame: its index in the video.
        objects: the objects to draw, with masks of the frame's size.

    Raises:
        ValueError: if the video cannot be decoded or has no such frame, or a mask differs in size from the frame.
    """
    try:
        plan = plan_video(str(video), Sampling(), segment_frames=1)
        for segment in plan.segments:
            match = segment.frames == frame
            if match.any():
                single = replace(
                    segment, frames=segment.frames[match], times_s=segment.times_s[match], pts=segment.pts[match]
                )
                for batch in decode(str(video), plan.info, single, size=None, batch_size=1):
                    height, width = batch.frames.shape[1:3]
                    size = _scaled(height, width, _TILE / max(height, width))
                    return draw_scaled(batch.frames[0], objects, size)
    except VideoError as error:
        raise ValueError(f"video: cannot read {video} ({error})") from error
    raise ValueError(f"video: cannot read {video} (frame {frame} cannot be decoded)")


def _enlargement(height: int, width: int) -> int:
    """Returns the whole factor that makes labels readable on frames of this size, and that H.264 can take."""
    return max(1, min(-(-_MIN_HEIGHT // height), _MAX_SIDE // max(height, width)))


def _scaled(height: int, width: int, scale: float) -> tuple[int, int]:
    return max(1, round(height * scale)), max(1, round(width * scale))


class _Labels:
    """The objects to draw in each frame of a video; frames must be requested in order."""

    def __init__(self, tracks: pa.Table, masks: pa.Table, min_score: float, most: int | None) -> None:
        best = sorted(tracks.select(["track_id", "category", "score"]).to_pylist(), key=lambda row: -row["score"])
        self._tracks = {row["track_id"]: row for row in best if row["score"] >= min_score}
        self._most = most
        self._masks = masks.sort_by("frame")
        self._frames, self._starts = np.unique(self._masks["frame"].to_numpy(), return_index=True)
        periods = np.diff(self._masks["time_s"].to_numpy()[self._starts])
        self._hold = _HOLD * float(periods.min() if periods.size else 1)
        self._shown, self._since = -1, 0.0
        self._objects: list[DrawnObject] = []

    def at(self, frame: int, time_s: float) -> list[DrawnObject]:
        """Returns the objects of the latest labelled frame, for at most 1.5 sampling periods.

        Sampled frames without objects have no rows, so later frames show nothing.
        """
        latest = int(np.searchsorted(self._frames, frame, side="right")) - 1
        if latest != self._shown:
            self._shown, self._since, self._objects = latest, time_s, self._decode(latest)
        return self._objects if time_s - self._since <= self._hold else []

    def _decode(self, number: int) -> list[DrawnObject]:
        start, stop = [*self._starts, len(self._masks)][number : number + 2]
        masks = {row["track_id"]: row["rle"] for row in self._masks.slice(start, stop - start).to_pylist()}
        return [
            DrawnObject(
                track_id=track_id,
                name=track["category"],
                score=track["score"],
                mask=rle.decode(tuple(masks[track_id]["size"]), masks[track_id]["counts"].encode()),
            )
            for track_id, track in [(i, track) for i, track in self._tracks.items() if i in masks][: self._most]
        ]
