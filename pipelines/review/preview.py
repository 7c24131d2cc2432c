"""Pictures of a video for who does not have it: a small film of its labelled frames, and a crop of each track."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64
from PIL import Image

from pipelines.overlays.encoder import PREVIEW, encoder
from pipelines.review.images import FRAME, Frames, best_mask, crop
from pipelines.video.plan import VideoError, VideoPlan

_GAP = 1.5  # distances of labelled frames from which on those in between are shown, too


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What `picture` found.

    Attributes:
        crops: a JPEG of each track where it is seen best, by track id.
        missing: why there is none of a track, by track id.
    """

    crops: dict[int, bytes] = field(default_factory=dict)
    missing: dict[int, str] = field(default_factory=dict)


def picture(frames: Frames, video: Mapping[str, Any], masks: pa.Table, film: Path) -> Pictures:
    """Makes the pictures of a video, which is decoded once.

    The film has the labelled frames, at their times, and in gaps between them frames at the same distance; its longer
    side is at most 960 pixels.

    Args:
        frames: decodes.
        video: its row of the `videos` table.
        masks: its rows of the `masks` table, at least one.
        film: an .mp4 file to write.

    Raises:
        VideoError: the video is missing or cannot be read, or is of another size than its masks.
    """
    tracks = masks["track_id"].unique().to_pylist()
    best = {track: best_mask(masks.filter(pc.field("track_id") == track)) for track in tracks}
    by_frame: dict[int, list[int]] = {}
    for track, mask in best.items():
        by_frame.setdefault(mask["frame"], []).append(track)
    labelled = np.unique(masks["frame"].to_numpy()).astype(np.int64)
    scale = min(1.0, FRAME / max(video["height"], video["width"]))
    size = max(1, round(video["height"] * scale)), max(1, round(video["width"] * scale))
    rate = Fraction(video["fps"] or 25).limit_denominator(1001)
    found, shown = Pictures(), False
    with encoder(film, rate, size, PREVIEW) as encode:
        for batch in frames.each(video["uri"], lambda plan: _film_frames(labelled, plan)):
            pixels, frame, time_s = batch.frames[0], int(batch.frame[0]), float(batch.time_s[0])
            found.crops.update({track: crop(pixels, best[track]) for track in by_frame.pop(frame, ())})
            image = np.asarray(Image.fromarray(pixels).resize(size[::-1]))
            if not shown:
                encode(image, 0.0)  # so that times in the film are those of the video, even without its first frame
            if time_s > 0:
                encode(image, time_s)
            shown = True
        if not shown:
            raise VideoError("none of its labelled frames can be decoded")
    for frame, tracks in by_frame.items():
        found.missing.update(dict.fromkeys(tracks, f"frame {frame} cannot be decoded"))
    return found


def _film_frames(labelled: Int64[np.ndarray, " n"], plan: VideoPlan) -> Int64[np.ndarray, " m"]:
    """Returns the labelled frames, the first one, and what fills gaps."""
    last = max(int(segment.frames[-1]) for segment in plan.segments)
    stride = max(1, int(np.median(np.diff(labelled)) if len(labelled) > 1 else round(plan.info.fps)))
    ends = [-stride, *labelled.tolist(), last + stride]
    fill = [np.arange(start + stride, stop, stride) for start, stop in pairwise(ends) if stop - start > _GAP * stride]
    return np.unique(np.concatenate([[0], labelled, *fill])).astype(np.int64)
