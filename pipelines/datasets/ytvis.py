"""Files in the format of YouTube-VIS: ground truths and predictions.

Ground truths of YouTube-VIS 2019 and 2021, OVIS, LV-VIS (categories have `partition`), UVO, and Shapes:

videos         id, width, height, length, file_names; those of Shapes also `video` and `fps`; those of labels `uri` and
               `frames`, and, if reviewed, `neg_category_ids` and `not_exhaustive_category_ids`, as images of LVIS
categories     id, name
annotations    one per track: id, video_id, category_id, iscrowd, and per frame, null where absent,
               `segmentations` (compressed or plain run lengths, or polygons), `areas` in pixels, `bboxes`

Predictions are a list of video_id, category_id, score and `segmentations` as compressed run lengths.
"""

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import TextIOBase, TextIOWrapper
from itertools import compress
from pathlib import Path
from typing import Any

from pipelines.datasets.annotations import (
    UNLISTED,
    AnnotatedTrack,
    AnnotatedVideo,
    Category,
    Federation,
    GroundTruth,
    Id,
    Mask,
    PredictedTrack,
    by_stated_id,
)
from pipelines.datasets.documents import Document, read_document
from pipelines.datasets.ytvis_entries import EntryReader, is_id
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

    def read(document: Document) -> GroundTruth:
        reader = EntryReader(path, strict, problems if document.plain else None, document.lifted)
        return read_annotations("video", reader, document, _read_video, _read_annotation)

    return read_document(path, read, every_error=problems is not None)


def read_annotations(
    kind: str,
    reader: EntryReader,
    document: Document,
    read_video: Callable[[EntryReader, Mapping[Id, int], Mapping[Id, int], int, Any], AnnotatedVideo],
    read_track: Callable[[EntryReader, Mapping[Id, AnnotatedVideo], Mapping[Id, Category], int, Any], AnnotatedTrack],
) -> GroundTruth:
    """Reads a document of videos, or images, with categories and annotations.

    Args:
        kind: "video" or "image", in the words of the format.
        reader: a reader of the file.
        document: the file.
        read_video: reads a video from the numbers of ids of videos and of categories, its position and its entry.
        read_track: reads an annotation from the videos and the categories by their ids, its position and its entry.
    """
    content = document.content
    if not isinstance(content, dict):
        what = f"holds a {type(content).__name__}"
        raise reader.error("the file", what, f"give a file with {kind}s and annotations")
    entries, listed = (reader.entries(content, name) for name in (f"{kind}s", "categories"))
    numbers = reader.numbers(f"{kind}s", entries), reader.numbers("categories", listed)
    videos = reader.read_each(entries, partial(read_video, reader, *numbers))
    categories = reader.read_each(listed, partial(_read_category, reader, numbers[1]))
    categories, videos = reader.last_of_each("category", categories), reader.last_of_each(kind, videos)
    annotated = content.get("annotations") is not None
    annotations = reader.entries(content, "annotations") if annotated and not reader.problems else []
    known = by_stated_id(videos), by_stated_id(categories)
    tracks = reader.read_each(annotations, partial(read_track, reader, *known))
    reader.check_unique("annotation", (track.id for track in tracks))
    sound = reader.check_masks([(f"annotation {track.id}", track.masks) for track in tracks])
    tracks = tuple(compress(tracks, sound))
    return GroundTruth(
        path=reader.path,
        sha256=document.sha256,
        videos=videos,
        categories=categories,
        tracks=tracks,
        annotated=annotated,
        warnings=dict(reader.warnings),
    )


def read_predictions(
    path: str, ground_truth: GroundTruth, *, strict: bool, categories: bool = True, masks: bool = True
) -> Predictions:
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
        masks: whether all masks are checked. Otherwise, what reads one raises `CorruptMaskError` if it is corrupt, and
            `mask_table.check` checks those that nothing has read.

    Raises:
        ValueError: names the file, the entry, counted from 0, the value and the remedy.
    """

    def read(document: Document) -> Predictions:
        reader, content = EntryReader(path, strict, lifted=document.lifted), document.content
        if not isinstance(content, list) or not content:
            what = f"holds a {type(content).__name__}" if not isinstance(content, list) else "is an empty list"
            raise reader.error("the file", what, "give a list with at least one prediction")
        known = by_stated_id(ground_truth.videos), by_stated_id(ground_truth.categories) if categories else None
        tracks = tuple(_read_prediction(reader, *known, i, entry) for i, entry in enumerate(content))
        if masks or document.plain:
            reader.check_masks([(f"entry {i}", track.masks) for i, track in enumerate(tracks)])
        return Predictions(tracks=tracks, warnings=dict(reader.warnings), sha256=document.sha256)

    return read_document(path, read)


def write_predictions(
    path_or_file: str | Path | TextIOBase, tracks: Iterable[PredictedTrack], ground_truth: GroundTruth | None = None
) -> None:
    """Writes predictions in the format of the official tools and servers, one at a time to spare memory.

    Args:
        path_or_file: a file open for text; or a path, which appears once it is complete.
        tracks: the predictions, with a mask or None for every frame of their videos.
        ground_truth: the ground truth; ids that are not whole numbers are written as its file states them.
    """
    videos = _stated_ids(ground_truth.videos if ground_truth else ())
    categories = _stated_ids(ground_truth.categories if ground_truth else ())
    with _open(path_or_file) as file:
        separator = "["
        for track in tracks:
            ids = {"video_id": videos.get(track.video_id, track.video_id)}
            ids["category_id"] = categories.get(track.category_id, track.category_id)
            entry = ids | {"score": float(track.score)}
            file.write(separator + "\n" + json.dumps(entry | {"segmentations": [_plain(mask) for mask in track.masks]}))
            separator = ","
        file.write("[]\n" if separator == "[" else "\n]\n")


def _stated_ids(listed: Sequence[AnnotatedVideo | Category]) -> dict[int, Id]:
    return {each.id: each.stated_id for each in listed if each.stated_id is not None}


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


def _read_video(
    reader: EntryReader, numbers: Mapping[Id, int], categories: Mapping[Id, int], index: int, entry: Any
) -> AnnotatedVideo:
    stated = reader.id(f"video entry {index}", entry, "id")
    where, number = f"video {stated}", numbers[stated]
    sides = {name: reader.value(where, entry, name, int) for name in ("height", "width")}
    for name, value in sides.items():
        if value < 1:
            raise reader.error(where, f"has {name!r} {value}", "give heights and widths of 1 or more")
    names = _file_names(reader, where, entry)
    return AnnotatedVideo(
        id=number,
        **sides,
        length=_length(reader, where, entry, names),
        file_names=names,
        video=_optional(reader, where, entry, "video", str),
        uri=_optional(reader, where, entry, "uri", str),
        frames=_indices(entry.get("frames")),
        fps=_optional(reader, where, entry, "fps", float),
        federation=read_federation(reader, where, entry, categories),
        stated_id=None if number == stated else stated,
    )


def read_federation(reader: EntryReader, where: str, entry: Any, categories: Mapping[Id, int]) -> Federation | None:
    """Returns what a video or image says of its categories, as LVIS' images do; None if it says nothing of the kind."""
    names = {"absent": "neg_category_ids", "partial": "not_exhaustive_category_ids"}
    if not any(name in entry for name in names.values()):
        return None
    found: dict[str, tuple[int, ...]] = {}
    for field, name in names.items():
        listed = reader.value(where, {name: []} | entry, name, list)
        for category in listed:
            if not is_id(category) or category not in categories:
                what = f"has {category!r:.60} among its {name}, which is not in the file"
                raise reader.error(where, what, "add the category or remove its id")
        found[field] = tuple(categories[category] for category in listed)
    return Federation(**found)


def _file_names(reader: EntryReader, where: str, entry: Any) -> tuple[str, ...]:
    names = entry.get("file_names") or []
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return tuple(names)
    reader.odd(where, f"has 'file_names' {names!r:.60}", "give a list of texts", "file_names that are no list of texts")
    return ()


def _length(reader: EntryReader, where: str, entry: Any, names: Sequence[str]) -> int | None:
    """Returns the number of frames; official tools ignore it."""
    length = entry.get("length")
    if length is None and names:
        return len(names)
    if type(length) is not int or length < 1:
        what = "has no 'length'" if length is None else f"has 'length' {length!r:.60}"
        reader.odd(where, what, "give the number of frames", "videos that do not state their length")
        return None
    if names and len(names) != length:
        reader.odd(
            where,
            f"has {len(names)} file_names, but length {length}",
            "give a name per frame",
            "videos whose number of file_names is not their length",
        )
    return length


def _indices(frames: Any) -> tuple[int, ...]:
    """Returns the frames of labels; other tools may mean something else by the name."""
    return tuple(frames) if isinstance(frames, list) and all(type(frame) is int for frame in frames) else ()


def _optional(reader: EntryReader, where: str, entry: Any, name: str, kind: type) -> Any:
    return None if entry.get(name) is None else reader.value(where, entry, name, kind)


def _read_category(reader: EntryReader, numbers: Mapping[Id, int], index: int, entry: Any) -> Category:
    stated = reader.id(f"category entry {index}", entry, "id")
    where, number = f"category {stated}", numbers[stated]
    partition = entry.get("partition")
    if partition is not None and (type(partition) is not int or not 0 <= partition <= 3):
        raise reader.error(where, f"has the partition {partition!r:.60}", "give 0 or 1 (base), 2 or 3 (novel)")
    name = entry.get("name")
    if not isinstance(name, str):
        what = f"has 'name' {name!r:.60}" if "name" in entry else "has no 'name'"
        reader.odd(where, what, "give a text", "categories without a name")
        name = ""
    return Category(id=number, name=name, partition=partition, stated_id=None if number == stated else stated)


def _read_annotation(
    reader: EntryReader,
    videos: Mapping[Id, AnnotatedVideo],
    categories: Mapping[Id, Category],
    index: int,
    entry: Any,
) -> AnnotatedTrack:
    number = annotation_id(reader, f"annotation entry {index}", entry)
    where = f"annotation {number}"
    if number == 0:  # strict rules find it, so it is never refused
        reader.warnings["annotations with the id 0: official tools never find them"] += 1
    video_id, category_id = (reader.id(where, entry, name) for name in ("video_id", "category_id"))
    video, category = videos.get(video_id), categories.get(category_id)
    for name, value, known in (("video_id", video_id, video), ("category_id", category_id, category)):
        if known is None:
            odd = f"annotations whose {name} the file does not list: they do not count"
            reader.odd(where, f"has {name!r} {value!r:.60}, which is not in the file", "add it or remove it", odd)
    return AnnotatedTrack(
        id=number,
        video_id=UNLISTED if video is None else video.id,
        category_id=UNLISTED if category is None else category.id,
        masks=reader.masks(where, entry, video, polygons=True),
        areas=_areas(reader, where, entry, video),
        crowd=_crowd(reader, where, entry),
    )


def annotation_id(reader: EntryReader, where: str, entry: Any) -> float:
    """Returns an annotation's id as a number, which official tools make of a text."""
    stated = reader.id(where, entry, "id")
    try:
        number = float(stated)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise reader.error(where, f"has 'id' {stated!r:.60}, at which official tools stop", "give a whole number")
    return int(stated) if number.is_integer() and not isinstance(stated, str) else number


def _areas(reader: EntryReader, where: str, entry: Any, video: AnnotatedVideo | None) -> tuple[float | None, ...]:
    areas = reader.value(where, entry, "areas", list)
    if not all(area is None or type(area) is float or _is_pixels(area) for area in areas):
        raise reader.error(where, f"has areas {areas!r:.60}", "give pixels, or null where the object is absent")
    if not all(area is None or 0 <= area < math.inf for area in areas):
        odd = "annotations with areas that are negative or not finite"
        reader.odd(where, f"has areas {areas!r:.60}", "give pixels, or null where the object is absent", odd)
    if video is not None and video.length not in (None, len(areas)):
        what = f"has {len(areas)} areas, but video {video.id} has {video.length} frames"
        reader.odd(where, what, "give one per frame", "annotations whose number of areas is not their video's length")
    return tuple(areas)


def _is_pixels(area: Any) -> bool:
    """Whether a value is a whole number that a float can hold."""
    return type(area) is int and abs(area) <= sys.float_info.max


def _crowd(reader: EntryReader, where: str, entry: Any) -> bool:
    crowd = entry.get("iscrowd", ...)
    if type(crowd) in (bool, float) and crowd in (0, 1):
        reader.odd(where, f"has iscrowd {crowd}", "give 0 or 1", "annotations whose iscrowd is not a whole number")
        return bool(crowd)
    if reader.value(where, entry, "iscrowd", int) not in (0, 1):
        reader.odd(where, f"has iscrowd {crowd}", "give 0 or 1", "annotations whose iscrowd is neither 0 nor 1")
    return bool(crowd)


def _read_prediction(
    reader: EntryReader,
    videos: Mapping[Id, AnnotatedVideo],
    categories: Mapping[Id, Category] | None,
    index: int,
    entry: Any,
) -> PredictedTrack:
    where = f"entry {index}"
    video_id, category_id = (reader.id(where, entry, name) for name in ("video_id", "category_id"))
    if video_id not in videos:
        what = f"has 'video_id' {video_id!r:.60}, which the ground truth does not list"
        raise reader.error(where, what, "remove it")
    if categories is not None and category_id not in categories:
        reader.odd(
            where,
            f"has 'category_id' {category_id!r:.60}, which the ground truth does not list",
            "use its category ids",
            "predictions of categories that the ground truth does not list",
        )
    score = reader.value(where, entry, "score", float)
    if math.isnan(score) or (reader.strict and math.isinf(score)):
        raise reader.error(where, f"has the score {score}", "give a finite number")
    category = (categories or {}).get(category_id)
    return PredictedTrack(
        video_id=videos[video_id].id,
        category_id=UNLISTED if category is None else category.id,
        score=score,
        masks=reader.masks(where, entry, videos[video_id], polygons=False),
    )
