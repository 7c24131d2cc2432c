"""Makes training clips from annotated videos: draws frames, decodes them, and augments pixels and masks.

Decoders run it, so it imports neither torch nor the model.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from pycocotools import mask as coco

from openvis_model.training.training_clip import TrainingClip
from pipelines.training.augmentation import (
    Window,
    draw_colour,
    draw_windows,
    drop_invisible,
    recolour,
    view_frame,
    view_mask,
)
from pipelines.training.data import TrainingData, TrainingVideo
from pipelines.training.federation import rival_names
from pipelines.training.still_images import read_image
from pipelines.video.decode import decode
from pipelines.video.plan import Segment, VideoError

_EPOCH, _SAMPLE = 0, 1  # purposes of generators, so that their numbers are independent


def sample(data: TrainingData, number: int) -> TrainingClip:
    """Makes sample `number` of an endless sequence; every epoch shows each video once, in another order.

    If the video has objects, at least one frame of the clip has one; the window may still miss it.

    Raises:
        ValueError: a file cannot be read; names file and video.
    """
    config = data.config
    epoch, place = divmod(number, len(data.videos))
    at = int(_order(len(data.videos), config.seed, epoch)[place])
    video, still = data.videos[at], config.format == "coco"
    rng = _generator(config.seed, _SAMPLE, number)
    frames = (
        np.zeros(config.frames, np.int64)
        if still
        else choose_frames(video.length, data.tracks.shown(at), config.frames, config.max_stride, rng)
    )
    try:
        pixels = _read(video, frames)
    except VideoError as error:
        raise ValueError(
            f"{config.annotations}: video {video.id}, {video.files[0]}: {error}; repair the file or remove the video"
        ) from error
    windows = draw_windows(config.frames, (video.height, video.width), config.size, config, rng, still=still)
    views = [view_frame(image, window, config.size) for image, window in zip(pixels, windows, strict=True)]
    masks, kept = drop_invisible(_masks(data, at, frames, windows))
    rivals = _rivals(data, at, frames)
    return TrainingClip(
        frames=recolour(np.stack(views), draw_colour(config, rng)),
        masks=masks,
        categories=data.tracks.categories[data.tracks.tracks(at)][kept],
        seed=int(rng.integers(1 << 63)),
        rivals=None if rivals is None else rivals[kept],
        exhaustive=rivals is None,
    )


def choose_frames(
    length: int, shown: Int64[np.ndarray, " F"], count: int, max_stride: int, rng: np.random.Generator
) -> Int64[np.ndarray, "T"]:
    """Draws T distinct frames of a video in ascending order, at distances from 1 to `max_stride`.

    Args:
        length: frames of the video, at least `count`; in a short video distances are smaller.
        shown: frames with a visible object; if there are any, the clip contains at least one of them.
        count: T.
        max_stride: largest distance, in frames.
        rng: source of randomness.
    """
    longest = min(max_stride, (length - 1) // (count - 1)) if count > 1 else 1
    for limit in range(longest, 0, -1):  # at distance 1 every frame is in some clip, so the loop succeeds
        offsets = np.append(0, rng.integers(1, limit + 1, count - 1).cumsum())
        starts = np.arange(length - offsets[-1])
        if len(shown):
            starts = starts[np.isin(starts[:, None] + offsets, shown).any(1)]
        if len(starts):
            chosen: np.ndarray = starts[rng.integers(len(starts))] + offsets
            return chosen
    raise AssertionError((length, shown, count))


def _generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(purpose, number))))


@lru_cache(maxsize=16)  # the epochs of several data sets, and the next ones
def _order(videos: int, seed: int, epoch: int) -> Int64[np.ndarray, "V"]:
    return _generator(seed, _EPOCH, epoch).permutation(videos)


def _read(video: TrainingVideo, frames: Int64[np.ndarray, "T"]) -> Sequence[UInt8[np.ndarray, "h w 3"]]:
    """Reads the pixels of frames.

    Raises:
        VideoError: the file has changed since the data set was checked, or cannot be decoded.
    """
    if video.plan is None:
        images = {frame: read_image(video.files[frame]) for frame in set(frames.tolist())}
        pixels = [images[frame] for frame in frames.tolist()]
    else:
        frames = frames if video.frames is None else video.frames[frames]
        with _local(video) as path:
            segment = _segment(video, frames)
            batch = next(decode(path, video.plan.info, segment, size=None, batch_size=len(frames)), None)
        decoded = [] if batch is None else batch.frame.tolist()
        if decoded != frames.tolist():
            raise VideoError(f"of the frames {frames.tolist()} only {decoded} can be decoded")
        assert batch is not None, "there are frames"
        pixels = list(batch.frames)
    for image in pixels:
        if image.shape[:2] != (video.height, video.width):
            raise VideoError(f"is now {image.shape[0]} x {image.shape[1]}, before {video.height} x {video.width}")
    return pixels


def _local(video: TrainingVideo) -> AbstractContextManager[str]:
    if not video.version:
        return nullcontext(video.files[0])
    from pipelines.video.download_cache import DownloadCache  # imports boto3

    return DownloadCache().open(video.files[0], video.version)


def _segment(video: TrainingVideo, frames: Int64[np.ndarray, "T"]) -> Segment:
    """A segment of these frames of the file alone; decoding starts at the last key frame before them."""
    assert video.plan is not None, "an encoded file"
    segments = video.plan.segments
    entry = max(segment.index for segment in segments if segment.frames[0] <= frames[0])
    times, pts = (np.concatenate([getattr(segment, name) for segment in segments]) for name in ("times_s", "pts"))
    return Segment(
        index=0,
        frames=frames,
        times_s=times[frames],
        pts=pts[frames],
        start_pts=segments[entry].start_pts,
        seek=segments[entry].seek,
    )


def _masks(
    data: TrainingData, video: int, frames: Int64[np.ndarray, "T"], windows: list[Window]
) -> Bool[np.ndarray, "N T H W"]:
    """Masks of the video's N tracks within the windows."""
    source = [data.videos[video].height, data.videos[video].width]
    tracks = data.tracks.tracks(video)
    masks = np.zeros((len(tracks), len(frames), *data.config.size), bool)
    for row, track in enumerate(tracks):
        for t, (frame, window) in enumerate(zip(frames.tolist(), windows, strict=True)):
            counts = data.tracks.counts(track, frame)
            if counts is not None:
                mask = coco.decode({"size": source, "counts": counts})
                masks[row, t] = view_mask(mask, window, data.config.size)
    return masks


def _rivals(data: TrainingData, video: int, frames: Int64[np.ndarray, "T"]) -> Bool[np.ndarray, "N K"] | None:
    """Which names compete with those of the tracks of a video in some frames of it; None if all do."""
    federation = data.videos[video].federation
    if federation is None:
        return None
    tracks, size = data.tracks.tracks(video), [data.videos[video].height, data.videos[video].width]
    nothing = coco.encode(np.zeros(size, np.uint8, order="F"))["counts"]
    masks = [
        [{"size": size, "counts": data.tracks.counts(track, frame) or nothing} for track in tracks]
        for frame in np.unique(frames).tolist()
    ]
    return rival_names(federation, data.tracks.categories[tracks], masks, len(data.names))
