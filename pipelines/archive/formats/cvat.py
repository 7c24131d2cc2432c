"""CVAT for video 1.1: one file per video, one track of boxes per object."""

import math
from collections.abc import Iterable
from itertools import pairwise
from xml.etree import ElementTree

from pipelines.archive.formats.video_labels import Row, VideoLabels
from pipelines.storage.files import Storage

_HOLD = 1.5  # steps that a box lasts beyond its frame; a step may vary by one frame

_ROUNDING = 0.1  # by how much the step, computed from the duration, may be too long, frames


def write_cvat(videos: Iterable[VideoLabels], categories: dict[str, int], output: Storage) -> set[str]:
    """Writes a box per labelled frame of a track; CVAT interpolates between them unless one is `outside`.

    Returns:
        Names of the files.
    """
    written = set()
    for video in videos:
        row = video.row
        size = max(round(row["duration_s"] * row["fps"]), video.frames[-1] + 1)
        # Between labelled frames.
        step, step_s = size / row["expected_frames"], row["duration_s"] / row["expected_frames"]
        period = math.ceil(step - _ROUNDING)
        every_frame = row["expected_frames"] >= size
        end = {"frame": size, "time_s": row["duration_s"]}
        frames_seen = list({mask["frame"]: mask for mask in video.masks}.values())
        following = {mask["frame"]: later for mask, later in pairwise([*frames_seen, end])}
        names = {track["category"]: None for track in video.tracks.values()}
        root = ElementTree.Element("annotations")
        _text(root, "version", "1.1")
        task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
        for name, value in (("size", size), ("mode", "interpolation"), ("start_frame", 0), ("stop_frame", size - 1)):
            _text(task, name, value)
        labels, original = ElementTree.SubElement(task, "labels"), ElementTree.SubElement(task, "original_size")
        for name in categories | names:
            _text(ElementTree.SubElement(labels, "label"), "name", name)
        for name in ("width", "height"):
            _text(original, name, row[name])
        for track, masks in video.masks_of_tracks().items():
            attributes = {"id": str(track), "label": video.tracks[track]["category"], "source": "auto"}
            element = ElementTree.SubElement(root, "track", attributes)
            for mask, later in zip(masks, [*masks[1:], end], strict=True):
                _add_box(element, mask, mask["frame"], outside=False)
                seen = following[mask["frame"]]  # where something was seen next, this track or another
                frames, seconds = seen["frame"] - mask["frame"], seen["time_s"] - mask["time_s"]
                if frames > max(period, _HOLD * step) and (every_frame or seconds > _HOLD * step_s):
                    _add_box(element, mask, mask["frame"] + period, outside=True)
                elif seen["frame"] < later["frame"]:
                    _add_box(element, mask, seen["frame"], outside=True)
        name = f"{row['video_id']}.xml"
        with output.write(name) as file:
            ElementTree.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)
        written.add(name)
    return written


def _text(parent: ElementTree.Element, name: str, value: str | int) -> None:
    ElementTree.SubElement(parent, name).text = str(value)


def _add_box(track: ElementTree.Element, mask: Row, frame: int, *, outside: bool) -> None:
    left, top, right, bottom = mask["x"], mask["y"], mask["x"] + mask["width"], mask["y"] + mask["height"]
    corners = {"xtl": left, "ytl": top, "xbr": right, "ybr": bottom}
    values = {"frame": frame, "keyframe": 1, "outside": int(outside), "occluded": 0, **corners, "z_order": 0}
    ElementTree.SubElement(track, "box", {name: str(value) for name, value in values.items()})
