"""Labelled tables as annotations of other tools: YouTube-VIS and COCO with masks, CVAT with boxes for review."""

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any, BinaryIO, Literal, get_args
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.results import Results, open_labels
from pipelines.storage import Storage

Format = Literal["youtube_vis", "coco", "cvat"]

Row = Mapping[str, Any]

Add = Callable[[str, Row], None]
"""Adds an item to a list of a JSON object."""

_HOLD = 1.5  # steps for which a track stays where it was seen last; a step may vary by a frame
_ROUNDING = 0.1  # frames that the length of a video, from its duration, may be too long by, per look

FILE = "annotations.json"
"""What YouTube-VIS and COCO annotations are called in the output."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """An export.

    Attributes:
        labels: output of a labelling run, local or s3://.
        output: folder of the annotations, local or s3://.
        format: `youtube_vis` (a file, masks of tracks), `coco` (a file, masks of frames) or `cvat` (a file of CVAT for
            video 1.1 per video, boxes of tracks).
        min_score: tracks that are scored lower are left out, 0 to 1.
    """

    labels: str
    output: str
    format: Format
    min_score: float = 0.0

    def __post_init__(self) -> None:
        if self.format not in get_args(Format):
            raise ValueError(f"format: unknown value {self.format!r}; choose from {', '.join(get_args(Format))}")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score: expected 0 to 1, got {self.min_score}")


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What an export wrote: videos in which something was found, and their tracks."""

    videos: int
    tracks: int


@dataclass(frozen=True, kw_only=True, eq=False)
class _Video:
    """A video and what was found in it.

    Attributes:
        row: of the `videos` table.
        tracks: rows of the `tracks` table, by track id.
        masks: rows of the `masks` table, sorted by frame.
        frames: indices of those frames in which something was found.
    """

    row: Row
    tracks: dict[int, Row]
    masks: list[Row]
    frames: list[int]

    def masks_of_tracks(self) -> dict[int, list[Row]]:
        """Masks of each track, by its id."""
        found: dict[int, list[Row]] = {track: [] for track in self.tracks}
        for mask in self.masks:
            found[mask["track_id"]].append(mask)
        return found

    def image(self, frame: int) -> str:
        """Name of a frame as an image file."""
        return f"{self.row['video_id']}/{frame:06d}.jpg"


def export_annotations(
    config: ExportConfig, report: Callable[[int, int], None] = lambda done, total: None
) -> ExportSummary:
    """Writes what a labelling run found as annotations; in memory is a video at a time.

    Args:
        config: the export.
        report: called with the number of videos that were looked at, and of all.

    Raises:
        ValueError: for labels that are not there, have no tracks of that score, or are damaged.
        OSError: the output cannot be written to.
    """
    results, output = open_labels(config.labels), Storage(config.output)
    found = results.scan("tracks", ("category", "score"), each=lambda rows: _categories(rows, config.min_score))
    categories = {name: number for number, name in enumerate(sorted(set().union(*found)), start=1)}
    if not categories:
        raise ValueError(f"labels: {config.labels} has no tracks with a score of {config.min_score} or more")
    output.check_writable()
    total = sum(map(len, results.counting().values()))
    looked_at = videos = tracks = 0

    def counted() -> Iterator[_Video]:
        nonlocal looked_at, videos, tracks
        for video in _videos(results, config.min_score):
            looked_at += 1
            if video.tracks:
                videos, tracks = videos + 1, tracks + len(video.tracks)
                yield video
            report(looked_at, total)

    if config.format == "cvat":
        _remove_earlier(results, output, _write_cvat(counted(), categories, output))
    else:
        write = _write_youtube_vis if config.format == "youtube_vis" else _write_coco
        with _json_lists(output, FILE) as add:
            write(counted(), categories, add)
            for name, number in categories.items():
                add("categories", {"id": number, "name": name})
    return ExportSummary(videos=videos, tracks=tracks)


def _categories(tracks: pa.Table, min_score: float) -> set[str]:
    return set(tracks.filter(pc.field("score") >= min_score)["category"].unique().to_pylist())


def _videos(results: Results, min_score: float) -> Iterator[_Video]:
    """Yields each video once; where parts are merged meanwhile, goes on with those that have the rest."""
    todo = dict(results.counting())
    while todo:
        part = next(iter(todo))
        ids = todo.pop(part)
        done: list[str] = []
        try:
            for video in _videos_of_part(results, part, ids, min_score):
                done.append(video.row["video_id"])
                yield video
        except FileNotFoundError:
            if part in results.parts():
                raise
            rest = ids.filter(pc.invert(pc.is_in(ids, pa.array(done, pa.string()))))
            for other, its in results.counting(rest).items():
                todo[other] = pa.concat_arrays([its, todo[other]]) if other in todo else its


def _videos_of_part(results: Results, part: str, ids: pa.Array, min_score: float) -> Iterator[_Video]:
    rows = {row["video_id"]: row for table in results.row_groups("videos", part, ids) for row in table.to_pylist()}
    of_tracks, of_masks = (
        _by_video(results.row_groups(table, part, ids, columns))
        for table, columns in (
            ("tracks", ("video_id", "track_id", "category", "score")),
            ("masks", ("video_id", "track_id", "frame", "time_s", "x", "y", "width", "height", "area", "rle")),
        )
    )
    tracks = dict(of_tracks)
    for video_id, its in of_masks:
        kept = {row["track_id"]: row for row in tracks[video_id].to_pylist() if row["score"] >= min_score}
        masks = its.filter(pc.is_in(its["track_id"], pa.array(kept, pa.int32()))).sort_by("frame").to_pylist()
        frames = list(dict.fromkeys(mask["frame"] for mask in masks))
        yield _Video(row=rows.pop(video_id), tracks=kept, masks=masks, frames=frames)
    for row in rows.values():
        yield _Video(row=row, tracks={}, masks=[], frames=[])


def _by_video(tables: Iterable[pa.Table]) -> Iterator[tuple[str, pa.Table]]:
    """Yields the rows of each video; those of one stand together."""
    held: list[pa.Table] = []
    for table in tables:
        if not table.num_rows:
            continue  # a row group of which nothing counts
        ids = np.asarray(table["video_id"].to_pylist(), dtype=object)
        starts = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1).tolist(), len(ids)]
        for start, stop in pairwise(starts):
            if held and held[0]["video_id"][0].as_py() != ids[start]:
                yield _joined(held)
                held = []
            held.append(table.slice(start, stop - start))
    if held:
        yield _joined(held)


def _joined(tables: list[pa.Table]) -> tuple[str, pa.Table]:
    return tables[0]["video_id"][0].as_py(), pa.concat_tables(tables)


@contextmanager
def _json_lists(output: Storage, path: str) -> Iterator[Add]:
    """Gives a function that adds an item to a list of a JSON object, which is written at the end, a list at a time."""
    with ExitStack() as files:
        lists: dict[str, BinaryIO] = {}

        def add(name: str, item: Row) -> None:
            if name not in lists:
                lists[name] = files.enter_context(tempfile.TemporaryFile(prefix="openvis-export-"))
            else:
                lists[name].write(b",\n")
            lists[name].write(json.dumps(item, separators=(",", ":")).encode())

        yield add
        with output.write(path) as file:
            for number, (name, items) in enumerate(lists.items()):
                file.write(f'{"," if number else "{"}\n"{name}":[\n'.encode())
                items.seek(0)
                shutil.copyfileobj(items, file)
                file.write(b"]")
            file.write(b"}\n")


def _write_youtube_vis(videos: Iterable[_Video], categories: dict[str, int], add: Add) -> None:
    """An annotation is a track, with an entry per frame of the video that has anything; `frames` are their indices."""
    ids = count(1)
    for number, video in enumerate(videos, start=1):
        about = {"id": number, "width": video.row["width"], "height": video.row["height"], "length": len(video.frames)}
        names = {"video_id": video.row["video_id"], "uri": video.row["uri"], "frames": video.frames}
        add("videos", about | names | {"file_names": [video.image(frame) for frame in video.frames]})
        place = {frame: i for i, frame in enumerate(video.frames)}
        for track, masks in video.masks_of_tracks().items():
            row = video.tracks[track]
            its: dict[str, list[Any]] = {name: [None] * len(place) for name in ("segmentations", "bboxes", "areas")}
            for mask in masks:
                at = place[mask["frame"]]
                its["segmentations"][at], its["bboxes"][at], its["areas"][at] = mask["rle"], _box(mask), mask["area"]
            category = _number(categories, row["category"])
            about = {"id": next(ids), "video_id": number, "track_id": track, "category_id": category}
            add("annotations", about | {"score": row["score"], "iscrowd": 0} | its)


def _write_coco(videos: Iterable[_Video], categories: dict[str, int], add: Add) -> None:
    """An image is a frame that has anything, an annotation a mask; `track_id` says which belong together."""
    images, annotations = count(1), count(1)
    for video in videos:
        image_ids = dict(zip(video.frames, images, strict=False))
        for frame, image in image_ids.items():
            about = {"id": image, "file_name": video.image(frame), "video_id": video.row["video_id"], "frame": frame}
            add("images", about | {"width": video.row["width"], "height": video.row["height"]})
        for mask in video.masks:
            row = video.tracks[mask["track_id"]]
            about = {
                "id": next(annotations),
                "image_id": image_ids[mask["frame"]],
                "category_id": _number(categories, row["category"]),
            }
            what = {"segmentation": mask["rle"], "bbox": _box(mask), "area": mask["area"], "iscrowd": 0}
            add("annotations", about | what | {"track_id": mask["track_id"], "score": row["score"]})


def _number(categories: dict[str, int], name: str) -> int:
    """That of a category; a new one if it came up since, in a video that was labelled anew meanwhile."""
    return categories.setdefault(name, len(categories) + 1)


def _box(mask: Row) -> list[int]:
    return [mask["x"], mask["y"], mask["width"], mask["height"]]


def _write_cvat(videos: Iterable[_Video], categories: dict[str, int], output: Storage) -> set[str]:
    """A track is a box in each frame that was labelled, which CVAT interpolates between, or `outside`.

    Returns:
        The names of the files.
    """
    written = set()
    for video in videos:
        row = video.row
        size = max(round(row["duration_s"] * row["fps"]), video.frames[-1] + 1)
        step, step_s = size / row["expected_frames"], row["duration_s"] / row["expected_frames"]  # between two looks
        period = math.ceil(step - _ROUNDING)
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
        for track, its in video.masks_of_tracks().items():
            about = {"id": str(track), "label": video.tracks[track]["category"], "source": "auto"}
            element = ElementTree.SubElement(root, "track", about)
            end = {"frame": size, "time_s": row["duration_s"]}
            for mask, later in zip(its, [*its[1:], end], strict=True):
                _add_box(element, mask, mask["frame"], outside=False)
                frames, seconds = later["frame"] - mask["frame"], later["time_s"] - mask["time_s"]
                if frames > max(period, _HOLD * step) and seconds > _HOLD * step_s:
                    _add_box(element, mask, mask["frame"] + period, outside=True)
        name = f"{row['video_id']}.xml"
        with output.write(name) as file:
            ElementTree.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)
        written.add(name)
    return written


def _remove_earlier(results: Results, output: Storage, written: Set[str]) -> None:
    """Removes what an earlier export has written of videos of which there is nothing now."""
    ours = {f"{video_id}.xml" for ids in results.counting().values() for video_id in ids.to_pylist()}
    for path in list(output.list(".")):
        if (name := path.removeprefix("./")) in ours and name not in written:
            output.remove(name)


def _text(parent: ElementTree.Element, name: str, value: str | int) -> None:
    ElementTree.SubElement(parent, name).text = str(value)


def _add_box(track: ElementTree.Element, mask: Row, frame: int, *, outside: bool) -> None:
    left, top, right, bottom = mask["x"], mask["y"], mask["x"] + mask["width"], mask["y"] + mask["height"]
    corners = {"xtl": left, "ytl": top, "xbr": right, "ybr": bottom}
    values = {"frame": frame, "keyframe": 1, "outside": int(outside), "occluded": 0, **corners, "z_order": 0}
    ElementTree.SubElement(track, "box", {name: str(value) for name, value in values.items()})
