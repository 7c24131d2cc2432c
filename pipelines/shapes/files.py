"""Shapes as files: encoded videos beside annotations in the format of YouTube-VIS.

OUTPUT/SPLIT/videos/NAME.mp4     H.264, 4:2:0, near-lossless
OUTPUT/SPLIT/instances.json      see `write_split`
OUTPUT/SPLIT/vocabulary.txt      the 1,000 category names, one per line, in the order of category ids
"""

import fcntl
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from jaxtyping import Bool, UInt8

from openvis_model import rle
from pipelines.shapes.categories import BASE, CATEGORIES
from pipelines.shapes.render import Clip, render
from pipelines.shapes.scenes import SPLITS, SceneConfig, Split
from pipelines.storage.local import LocalStore, whole_folder

_CRF = "10"
_CHUNK = 8  # clips per task of a process


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """The result of `write_split`.

    Attributes:
        path: folder of the split.
        videos: number of videos.
        tracks: number of objects in all videos.
        masks: number of visible objects in all frames.
    """

    path: Path
    videos: int
    tracks: int
    masks: int


def write_split(
    output: Path,
    split: Split,
    videos: int,
    seed: int,
    config: SceneConfig,
    *,
    processes: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> SplitSummary:
    """Writes clips 0 to `videos` - 1 of a split to the folder `output`/`split`, which appears once it is complete.

    The annotations are those of YouTube-VIS 2021: `videos` (id, file_names, width, height, length), `categories`
    (id, name) and `annotations`, one per track (id, video_id, category_id, iscrowd, height, width, length, and per
    frame, null where the object is absent: `segmentations` as compressed RLE with text counts, `bboxes` as x, y, width,
    height in pixels, `areas` in pixels). All ids count from 1. Unlike in YouTube-VIS, videos also have `video`, the
    path of the encoded video within the folder, and `fps`; there are no image files: `file_names` only number frames.
    Categories have `partition` as in LV-VIS: 1 for those that may be trained on, 3 for the novel ones.

    Args:
        output: parent folder; made if missing.
        split: split to make.
        videos: number of videos; a longer split begins with the videos of a shorter one.
        seed: seed of the scenes.
        config: format of the clips.
        processes: number of processes; the files do not depend on it.
        progress: called with the number of finished videos.

    Raises:
        ValueError: the folder of the split is not empty, cannot be made, or is just being made; a size that 4:2:0 video
            cannot have; bad numbers.
    """
    if split not in SPLITS:
        raise ValueError(f"split: unknown value {split!r}; choose one of {', '.join(SPLITS)}")
    for name, value, least in (("videos", videos, 1), ("seed", seed, 0), ("processes", processes, 1)):
        if value < least:
            raise ValueError(f"{name}: must be at least {least}, got {value}; choose a larger value")
    if config.height % 2 or config.width % 2:
        raise ValueError(f"height and width: H.264 needs even numbers, got {config.height} and {config.width}")

    target = output / split
    _check_free(target)
    with ExitStack() as stack:
        try:
            stack.enter_context(_locked(output / f".{split}.lock"))
            LocalStore(str(output)).remove_partial(split)  # left by a run that was killed
            draft = stack.enter_context(whole_folder(target))
            (draft / "videos").mkdir()
        except OSError as error:
            raise ValueError(
                f"output: cannot make {error.filename} ({error.strerror}); choose another output"
            ) from error
        tracks = _write_videos(draft, split, videos, seed, config, processes, progress)
        document = _document(split, videos, seed, config, tracks)
        (draft / "instances.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")
        (draft / "vocabulary.txt").write_text("".join(f"{category.name}\n" for category in CATEGORIES))
        _check_free(target)
    masks = sum(area is not None for track in document["annotations"] for area in track["areas"])
    return SplitSummary(path=target, videos=videos, tracks=len(document["annotations"]), masks=masks)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keeps other processes out of the block; the system frees a lock when its process dies.

    Raises:
        ValueError: another one is in it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"output: another run is writing the split at {path.parent}; wait for it") from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _check_free(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"output: {target} exists and is not an empty folder; remove it or choose another output")


def encode_video(path: Path, frames: UInt8[np.ndarray, "T H W 3"], fps: int) -> None:
    """Writes an MP4 that browsers play: H.264, 4:2:0, BT.601, index first. One thread, so that bytes repeat."""
    with av.open(str(path), "w", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": _CRF, "preset": "fast", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.codec_context.colorspace = Colorspace.ITU601
        stream.codec_context.color_range = ColorRange.MPEG
        for image in frames:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            # Most is lost by halving the resolution of colour; averaging keeps it closest to the original.
            frame = frame.reformat(format="yuv420p", interpolation=Interpolation.AREA)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def annotate(clip: Clip) -> list[dict[str, Any]]:
    """Returns the tracks of a clip as annotations of YouTube-VIS, without `id` and `video_id`."""
    return [_track(masks, category) for masks, category in zip(clip.masks, clip.categories, strict=True)]


def _track(masks: Bool[np.ndarray, "T H W"], category: int) -> dict[str, Any]:
    length, height, width = masks.shape
    encoded = rle.encode(torch.from_numpy(masks))
    present = encoded.areas > 0

    def where_present(values: list[Any]) -> list[Any]:
        return [value if here else None for value, here in zip(values, present, strict=True)]

    segmentations = [{"size": [height, width], "counts": counts.decode()} for counts in encoded.counts]
    return {
        "category_id": category + 1,
        "iscrowd": 0,
        "height": height,
        "width": width,
        "length": length,
        "segmentations": where_present(segmentations),
        "bboxes": where_present(encoded.boxes.tolist()),
        "areas": where_present(encoded.areas.tolist()),
    }


def _name(split: Split, seed: int, index: int) -> str:
    return f"{split}-{seed}-{index:05}"


def _write_videos(
    draft: Path,
    split: Split,
    videos: int,
    seed: int,
    config: SceneConfig,
    processes: int,
    progress: Callable[[int], None],
) -> list[list[dict[str, Any]]]:
    """Renders and encodes all videos; returns the tracks of each."""
    write = partial(_write_video, draft, split, seed, config)
    tracks = []
    if processes == 1:
        for index in range(videos):
            tracks.append(write(index))
            progress(len(tracks))
        return tracks
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for clip_tracks in pool.map(write, range(videos), chunksize=_CHUNK):
            tracks.append(clip_tracks)
            progress(len(tracks))
    return tracks


def _write_video(draft: Path, split: Split, seed: int, config: SceneConfig, index: int) -> list[dict[str, Any]]:
    clip = render(config, split, seed, index)
    encode_video(draft / "videos" / f"{_name(split, seed, index)}.mp4", clip.frames, config.fps)
    return annotate(clip)


def _document(
    split: Split, videos: int, seed: int, config: SceneConfig, tracks: list[list[dict[str, Any]]]
) -> dict[str, Any]:
    names = [_name(split, seed, index) for index in range(videos)]
    owned = [(video, track) for video, members in enumerate(tracks, start=1) for track in members]
    return {
        "info": {"description": "Shapes", "split": split, "seed": seed, "videos": videos},
        "videos": [
            {
                "id": number,
                "video": f"videos/{name}.mp4",
                "file_names": [f"{name}/{frame:05}.jpg" for frame in range(config.frames)],
                "width": config.width,
                "height": config.height,
                "length": config.frames,
                "fps": config.fps,
            }
            for number, name in enumerate(names, start=1)
        ],
        "categories": [
            {"id": number + 1, "name": category.name, "partition": 1 if number in BASE else 3}
            for number, category in enumerate(CATEGORIES)
        ],
        "annotations": [
            {"id": number, "video_id": video, **track} for number, (video, track) in enumerate(owned, start=1)
        ],
    }
