"""Label Studio: a task per video with boxes of each track as predictions, and the labelling configuration for them."""

import json
from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import Any
from xml.etree import ElementTree

from pipelines.archive.formats.format import Target
from pipelines.archive.formats.key_frames import frame_count, key_frames
from pipelines.archive.formats.video_labels import BOXES_ONLY, Row, VideoLabels

_BOX, _VIDEO = "box", "video"
"""Names of the tags VideoRectangle and Video in the configuration."""


def write_label_studio(videos: Iterable[VideoLabels], target: Target) -> None:
    """Writes tasks.json, for import into a project whose labelling configuration is config.xml.

    A video is loaded from its URI by the browser; Label Studio must be able to serve it.
    """
    with target.storage.write("tasks.json") as file:
        file.write(b"[")
        for number, video in enumerate(videos):
            for track in video.tracks.values():
                target.category_number(track["category"])
            file.write((",\n" if number else "\n").encode())
            file.write(json.dumps(_task(video), separators=(",", ":")).encode())
            target.losses.add(BOXES_ONLY, video, video.tracks)
        file.write(b"\n]\n")
    with target.storage.write("config.xml") as file:
        ElementTree.ElementTree(_configuration(target.categories)).write(file, encoding="utf-8")


def _configuration(categories: Iterable[str]) -> ElementTree.Element:
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Video", {"name": _VIDEO, "value": "$video", "frameRate": "$fps"})
    ElementTree.SubElement(view, "VideoRectangle", {"name": _BOX, "toName": _VIDEO})
    labels = ElementTree.SubElement(view, "Labels", {"name": "category", "toName": _VIDEO})
    for name in categories:
        ElementTree.SubElement(labels, "Label", {"value": name})
    return view


def _task(video: VideoLabels) -> dict[str, Any]:
    row = video.row
    regions = [_region(video, track, frames) for track, frames in key_frames(video)]
    score = fmean(track["score"] for track in video.tracks.values())
    prediction = {"model_version": row["model_fingerprint"] or "openvis", "score": score, "result": regions}
    data = {"video": row["uri"], "fps": row["fps"], "video_id": row["video_id"]}
    return {"data": data, "predictions": [prediction]}


def _region(video: VideoLabels, track: int, frames: list[tuple[Row, int | None]]) -> dict[str, Any]:
    row = video.tracks[track]
    value = {
        "framesCount": frame_count(video),
        "duration": video.row["duration_s"],
        "sequence": [box for mask, hidden in frames for box in _boxes(video, mask, hidden)],
        "labels": [row["category"]],
    }
    names = {"id": f"{video.row['video_id']}-{track}", "from_name": _BOX, "to_name": _VIDEO, "type": "videorectangle"}
    return names | {"origin": "prediction", "score": row["score"], "meta": {"track_id": track}, "value": value}


def _boxes(video: VideoLabels, mask: Row, hidden: int | None) -> Iterator[dict[str, Any]]:
    """Yields the box of a mask, and, if it lasts longer, that of the last frame in which the track is in sight.

    Label Studio shows a box that is not `enabled` in its own frame alone; frames count from 1.
    """
    width, height = video.row["width"] / 100, video.row["height"] / 100
    sides = {"x": mask["x"] / width, "y": mask["y"] / height}
    sides |= {"width": mask["width"] / width, "height": mask["height"] / height, "rotation": 0}
    last = mask["frame"] if hidden is None else hidden - 1
    for frame in dict.fromkeys((mask["frame"], last)):
        time_s = mask["time_s"] + (frame - mask["frame"]) / video.row["fps"]
        yield sides | {"frame": frame + 1, "time": time_s, "enabled": hidden is None or frame < last}
