"""Rerun: a recording per video with boxes and a segmentation image per labelled frame, for its viewer."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from pipelines.archive.formats.format import Target
from pipelines.archive.formats.key_frames import key_frames
from pipelines.archive.formats.video_labels import OVERLAPS, Row, VideoLabels, box


def write_rerun(videos: Iterable[VideoLabels], target: Target) -> None:
    """Writes VIDEO_ID.rrd for each video, with the timelines `frame` and `time`.

    `video/masks` and `video/boxes` show a frame's tracks until the next labelled frame. Their class ids number the
    tracks from 1; `video/tracks` lists ids, categories and scores in this order.
    """
    try:
        import rerun
    except ImportError as error:
        raise ValueError("format: rerun needs the package rerun-sdk; pip install 'rerun-sdk>=0.41'") from error
    for video in videos:
        with tempfile.TemporaryDirectory(prefix="openvis-export-") as folder:
            file = Path(folder) / "video.rrd"
            with rerun.RecordingStream("openvis", recording_id=video.row["video_id"]) as stream:
                stream.save(file)
                try:
                    _log_video(rerun, stream, video, target)
                finally:
                    stream.disconnect()
            target.storage.put(file, f"{video.row['video_id']}.rrd")


def _log_video(rerun: Any, stream: Any, video: VideoLabels, target: Target) -> None:
    stream.set_log_tick_enabled(False)
    stream.set_log_time_enabled(False)
    numbers = {track: number for number, track in enumerate(video.tracks, start=1)}
    names = [(numbers[track], f"{row['category']} #{track}") for track, row in video.tracks.items()]
    stream.log("video", rerun.AnnotationContext(names), static=True, strict=True)
    about = {name: [row[name] for row in video.tracks.values()] for name in ("category", "score")}
    tracks = rerun.AnyValues(track_id=list(numbers), **about, uri=video.row["uri"])
    stream.log("video/tracks", tracks, static=True, strict=True)
    covered = set[int]()
    for frame, masks in video.masks_of_frames().items():
        _set_time(stream, frame, masks[0]["time_s"])
        image = _painted(masks, numbers, covered)
        stream.log("video/masks", rerun.SegmentationImage(image), strict=True)
        boxes = [box(mask) for mask in masks]
        ids = [numbers[mask["track_id"]] for mask in masks]
        drawn = rerun.Boxes2D(array=boxes, array_format=rerun.Box2DFormat.XYWH, class_ids=ids)
        stream.log("video/boxes", drawn, strict=True)
    hidden = {end: mask for _, frames in key_frames(video) for mask, end in frames if end is not None}
    for frame in sorted(hidden.keys() - set(video.frames)):
        mask = hidden[frame]
        _set_time(stream, frame, mask["time_s"] + (frame - mask["frame"]) / video.row["fps"])
        for entity in ("video/masks", "video/boxes"):
            stream.log(entity, rerun.Clear(recursive=False), strict=True)
    target.losses.add(OVERLAPS, video, sorted(covered))


def _set_time(stream: Any, frame: int, time_s: float) -> None:
    stream.set_time("frame", sequence=frame)
    stream.set_time("time", duration=time_s)


def _painted(masks: list[Row], numbers: dict[int, int], covered: set[int]) -> np.ndarray:
    """Returns an image of track numbers, better tracks on top; adds tracks that are covered to `covered`."""
    image = np.zeros(masks[0]["rle"]["size"], np.min_scalar_type(len(numbers)))
    for mask in reversed(masks):
        pixels = coco_mask.decode(mask["rle"]).astype(bool)
        below = set(np.unique(image[pixels]).tolist())
        covered |= {track for track, number in numbers.items() if number in below}
        image[pixels] = numbers[mask["track_id"]]
    return image
