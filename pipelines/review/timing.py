"""When the masks of a video are shown, and when its tracks are in sight."""

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int32

_GAP = 1.5  # periods without a mask after which a track counts as out of sight; periods may vary by a frame


def frames_by_track(masks: pa.Table) -> dict[int, Int32[np.ndarray, " f"]]:
    """Returns the frames in which each track is seen."""
    if not masks.num_rows:
        return {}
    tracks, frames = masks["track_id"].to_numpy(), masks["frame"].to_numpy()
    order = np.argsort(tracks, kind="stable")
    ids, starts = np.unique(tracks[order], return_index=True)
    return dict(zip(ids.tolist(), np.split(frames[order], starts[1:]), strict=True))


def ends_of(
    frames: Int32[np.ndarray, " F"], times: Float64[np.ndarray, " F"], period: float
) -> Float64[np.ndarray, " F"]:
    """Returns how long the masks of each labelled frame are shown: to the next one, or for a period before a gap.

    Sampled frames without objects have no rows. Neither need frames be evenly spaced in time, nor those that were
    sampled in number, so a gap is one in both.

    Args:
        frames: indices of the labelled frames with masks.
        times: their times, seconds.
        period: of the video's frames, seconds.
    """
    if len(times) > 1:
        period = float(np.median(np.diff(times)))
    following = np.append(times[1:], times[-1:] + period)
    is_gap = np.diff(times) > _GAP * period
    is_gap &= np.diff(frames) > _GAP * np.median(np.diff(frames)) if len(frames) > 1 else False
    return np.where(np.append(is_gap, False)[: len(times)], times + period, following)


def runs_of(times: Float64[np.ndarray, " f"], ends: Float64[np.ndarray, " f"]) -> list[tuple[float, float]]:
    """Returns the times between which a track is seen without a gap."""
    if not len(times):
        return []
    breaks = np.flatnonzero(times[1:] > ends[:-1]) + 1
    starts, stops = np.split(times, breaks), np.split(ends, breaks)
    return [(float(start[0]), float(stop[-1])) for start, stop in zip(starts, stops, strict=True)]
