"""Files in the format of YouTube-VIS: ground truths and predictions.

Ground truths of YouTube-VIS 2019 and 2021, OVIS, LV-VIS (categories have `partition`), UVO, and Shapes:

videos         id, width, height, length, file_names; those of Shapes also `video` and `fps`
categories     id, name
annotations    one per track: id, video_id, category_id, iscrowd, and per frame, null where absent,
               `segmentations` (compressed or plain run lengths, or polygons), `areas` in pixels, `bboxes`

Predictions are a list of video_id, category_id, score and `segmentations` as compressed run lengths.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import TextIOBase, TextIOWrapper
from itertools import compress
from pathlib import Path
from typing import Any

from pipelines.datasets.annotations import (
    AnnotatedTrack,
    AnnotatedVideo,
    Category,
    GroundTruth,
    Mask,
    PredictedTrack,
    read_json,
)
from pipelines.datasets.ytvis_entries import EntryReader
from pipelines.storage.local import whole_file


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """A file of predictions.

    Attributes:
        tracks: in the order of the file.
        warnings: oddities that were accepted, and how often each occurs.
        sha256: hash of its bytes.
    """

    tracks: tuple[PredictedTrack, ...]
    warnings: Mapping[str, int]
    sha256: str


def read_ground_truth(path: str, *, strict: bool, problems: list[str] | None = None) -> GroundTruth:
    """Reads annotated videos.

    Args:
        path: the file.
        strict: refuses every inconsistency. Otherwise refuses only entries that would stop the official evaluator or
            that it would misread; the rest is accepted and counted in `GroundTruth.warnings`.
        problems: list that collects the errors of single entries, which are then left out; None raises the first.
            Annotations are only checked if videos and categories are sound.

    Raises:
        ValueError: names the file, the video or annotation, the value and the remedy.
    """
    return read_annotations("video", EntryReader(path, strict, problems), _read_video, _read_annotation)


def read_annotations(
    kind: str,
    reader: EntryReader,
    read_video: Callable[[EntryReader, int, Any], AnnotatedVideo],
    read_track: Callable[[EntryReader, int, Any, Mapping[int, AnnotatedVideo], set[int]], AnnotatedTrack],
) -> GroundTruth:
    """Reads a document of videos, or images, with categories and annotations.

    Args:
        kind: "video" or "image", in the words of the format.
        reader: a reader of the file.
        read_video: reads a video from its position and entry.
        read_track: reads an annotation from its position, its entry, the videos by id and the ids of categories.
    """
    document, sha256 = read_json(reader.path)
    if not isinstance(document, dict):
        what = f"holds a {type(document).__name__}"
        raise reader.error("the file", what, f"give a file with {kind}s and annotations")
    videos = reader.read_each(reader.entries(document, f"{kind}s"), partial(read_video, reader))
    categories = reader.read_each(reader.entries(document, "categories"), partial(_read_category, reader))
    reader.check_unique("category", (category.id for category in categories))
    reader.check_unique(kind, (video.id for video in videos))
    known = {video.id: video for video in videos}, {category.id for category in categories}
    annotations = reader.entries(document, "annotations") if not reader.problems else []
    tracks = reader.read_each(annotations, lambda position, entry: read_track(reader, position, entry, *known))
    reader.check_unique("annotation", (track.id for track in tracks))
    sound = reader.check_masks([(f"annotation {track.id}", track.masks) for track in tracks])
    tracks = tuple(compress(tracks, sound))
    return GroundTruth(
        path=reader.path,
        sha256=sha256,
        videos=videos,
        categories=categories,
        tracks=tracks,
        warnings=dict(reader.warnings),
    )


def read_predictions(path: str, ground_truth: GroundTruth, *, strict: bool, categories: bool = True) -> Predictions:
    """Reads predictions for the videos of a ground truth.

    Tracks of categories that the ground truth does not have are kept, though they do not count, unless a benchmark
    replaces all categories.

    Args:
        path: the file.
        ground_truth: the ground truth that the predictions are for.
        strict: refuses everything that does not fit the ground truth. Otherwise refuses only entries that would stop
            the official evaluator, and NaN scores, which would make its order arbitrary; the rest is accepted and
            counted in `Predictions.warnings`.
        categories: whether an unlisted category is an oddity; False if the benchmark replaces all categories.

    Raises:
        ValueError: names the file, the entry, counted from 0, the value and the remedy.
    """
    document, sha256 = read_json(path)
    reader = EntryReader(path, strict)
    if not isinstance(document, list) or not document:
        what = f"holds a {type(document).__name__}" if not isinstance(document, list) else "is an empty list"
        raise reader.error("the file", what, "give a list with at least one prediction")
    videos = {video.id: video for video in ground_truth.videos}
    known = {category.id for category in ground_truth.categories} if categories else None
    tracks = tuple(_read_prediction(reader, i, entry, videos, known) for i, entry in enumerate(document))
    reader.check_masks([(f"entry {i}", track.masks) for i, track in enumerate(tracks)])
    return Predictions(tracks=tracks, warnings=dict(reader.warnings), sha256=sha256)


def write_predictions(path_or_file: str | Path | TextIOBase, tracks: Iterable[PredictedTrack]) -> None:
    """Writes predictions in the format of the official tools and servers, one at a time to spare memory.

    Args:
        path_or_file: a file open for text; or a path, which appears once it is complete.
        tracks: the predictions, with a mask or None for every frame of their videos.
    """
    with _open(path_or_file) as file:
        separator = "["
        for track in tracks:
            entry = {"video_id": track.video_id, "category_id": track.category_id, "score": float(track.score)}
            file.write(separator + "\n" + json.dumps(entry | {"segmentations": [_plain(mask) for mask in track.masks]}))
            separator = ","
        file.write("[]\n" if separator == "[" else "\n]\n")


@contextmanager
def _open(path_or_file: str | Path | TextIOBase) -> Iterator[TextIOBase]:
    if not isinstance(path_or_file, str | Path):
        yield path_or_file
        return
    with whole_file(Path(path_or_file)) as file:
        text = TextIOWrapper(file, encoding="utf-8")
        yield text
        text.detach()  # flushes, and leaves the file open


def _plain(mask: Mask | None) -> dict[str, Any] | None:
    return None if mask is None else {"size": [mask.height, mask.width], "counts": mask.counts.decode("ascii")}


def _read_video(reader: EntryReader, index: int, entry: Any) -> AnnotatedVideo:
    number = reader.value(f"video entry {index}", entry, "id", int)
    where = f"video {number}"
    sides = {}
    for name in ("height", "width", "length"):
        sides[name] = reader.value(where, entry, name, int)
        if sides[name] < 1 or (reader.strict and number < 1):
            raise reader.error(where, f"has {name!r} {sides[name]}", "give ids, sizes and lengths of 1 or more")
    names = entry.get("file_names") or []
    if names and len(names) != sides["length"]:
        reader.odd(
            where,
            f"has {len(names)} file_names, but length {sides['length']}",
            "give a name per frame",
            "videos whose number of file_names is not their length",
        )
    return AnnotatedVideo(id=number, **sides, file_names=tuple(names), video=entry.get("video"), fps=entry.get("fps"))


def _read_category(reader: EntryReader, index: int, entry: Any) -> Category:
    number = reader.value(f"category entry {index}", entry, "id", int)
    where = f"category {number}"
    if reader.strict and number < 1:
        raise reader.error(where, "has an id below 1", "number categories from 1")
    partition = entry.get("partition")
    if partition is not None and (type(partition) is not int or not 0 <= partition <= 3):
        raise reader.error(where, f"has the partition {partition!r}", "give 0 or 1 (base), 2 or 3 (novel)")
    return Category(id=number, name=reader.value(where, entry, "name", str), partition=partition)


def _read_annotation(
    reader: EntryReader, index: int, entry: Any, videos: Mapping[int, AnnotatedVideo], categories: set[int]
) -> AnnotatedTrack:
    number = reader.value(f"annotation entry {index}", entry, "id", int)
    where = f"annotation {number}"
    if number < 1:  # strict rules find it, so it is never refused
        reader.warnings["annotations with an id below 1: official tools never find the one with the id 0"] += 1
    video_id, category_id = (reader.value(where, entry, name, int) for name in ("video_id", "category_id"))
    for name, value, known in (("video_id", video_id, videos.keys()), ("category_id", category_id, categories)):
        if value not in known:
            odd = f"annotations whose {name} the file does not list: they do not count"
            reader.odd(where, f"has {name!r} {value}, which is not in the file", "add it or remove the annotation", odd)
    video = videos.get(video_id)
    areas = reader.value(where, entry, "areas", list)
    if any(a is not None and (type(a) not in (int, float) or not math.isfinite(a) or a < 0) for a in areas):
        raise reader.error(where, f"has areas {areas!r:.60}", "give pixels, or null where the object is absent")
    if video is not None and len(areas) != video.length:
        what = f"has {len(areas)} areas, but video {video.id} has {video.length} frames"
        reader.odd(where, what, "give one per frame", "annotations whose number of areas is not their video's length")
    crowd = reader.value(where, entry, "iscrowd", int)
    if crowd not in (0, 1):
        reader.odd(where, f"has iscrowd {crowd}", "give 0 or 1", "annotations whose iscrowd is neither 0 nor 1")
    return AnnotatedTrack(
        id=number,
        video_id=video_id,
        category_id=category_id,
        masks=reader.masks(where, entry, video, polygons=True),
        areas=tuple(areas),
        crowd=bool(crowd),
    )


def _read_prediction(
    reader: EntryReader, index: int, entry: Any, videos: Mapping[int, AnnotatedVideo], categories: set[int] | None
) -> PredictedTrack:
    where = f"entry {index}"
    video_id, category_id = (reader.value(where, entry, name, int) for name in ("video_id", "category_id"))
    if video_id not in videos:
        raise reader.error(where, f"has video_id {video_id}, which the ground truth does not list", "remove it")
    if categories is not None and category_id not in categories:
        reader.odd(
            where,
            f"has category_id {category_id}, which the ground truth does not list",
            "use its category ids",
            "predictions of categories that the ground truth does not list",
        )
    score = reader.value(where, entry, "score", float)
    if math.isnan(score) or (reader.strict and math.isinf(score)):
        raise reader.error(where, f"has the score {score}", "give a finite number")
    return PredictedTrack(
        video_id=video_id,
        category_id=category_id,
        score=score,
        masks=reader.masks(where, entry, videos[video_id], polygons=False),
    )
