"""CVAT for video 1.1: one file per video, one track of boxes per object."""

from collections.abc import Iterable
from xml.etree import ElementTree

from pipelines.archive.formats.format import Target
from pipelines.archive.formats.key_frames import frame_count, key_frames
from pipelines.archive.formats.video_labels import BOXES_ONLY, Row, VideoLabels


def write_cvat(videos: Iterable[VideoLabels], target: Target) -> None:
    """Writes a box per labelled frame of a track; CVAT interpolates between them unless one is `outside`.

    Its importer keeps the first mask of a track alone ("mask track are not supported"), so masks are left out.
    """
    for video in videos:
        root = _annotations(video, target.categories)
        for track, frames in key_frames(video):
            attributes = {"id": str(track), "label": video.tracks[track]["category"], "source": "auto"}
            element = ElementTree.SubElement(root, "track", attributes)
            for mask, hidden in frames:
                _add_box(element, mask, mask["frame"], outside=False)
                if hidden is not None:
                    _add_box(element, mask, hidden, outside=True)
        with target.storage.write(f"{video.row['video_id']}.xml") as file:
            ElementTree.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)
        target.losses.add(BOXES_ONLY, video, video.tracks)


def _annotations(video: VideoLabels, categories: Iterable[str]) -> ElementTree.Element:
    """Returns the root, with what CVAT says of a task and no tracks."""
    size = frame_count(video)
    root = ElementTree.Element("annotations")
    _text(root, "version", "1.1")
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    for name, value in (("size", size), ("mode", "interpolation"), ("start_frame", 0), ("stop_frame", size - 1)):
        _text(task, name, value)
    labels, original = ElementTree.SubElement(task, "labels"), ElementTree.SubElement(task, "original_size")
    for name in dict.fromkeys([*categories, *(track["category"] for track in video.tracks.values())]):
        _text(ElementTree.SubElement(labels, "label"), "name", name)
    for name in ("width", "height"):
        _text(original, name, video.row[name])
    return root


def _text(parent: ElementTree.Element, name: str, value: str | int) -> None:
    ElementTree.SubElement(parent, name).text = str(value)


def _add_box(track: ElementTree.Element, mask: Row, frame: int, *, outside: bool) -> None:
    left, top, right, bottom = mask["x"], mask["y"], mask["x"] + mask["width"], mask["y"] + mask["height"]
    corners = {"xtl": left, "ytl": top, "xbr": right, "ybr": bottom}
    values = {"frame": frame, "keyframe": 1, "outside": int(outside), "occluded": 0, **corners, "z_order": 0}
    ElementTree.SubElement(track, "box", {name: str(value) for name, value in values.items()})
