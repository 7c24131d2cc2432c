"""BURST's files: ground truth and results as JSON, one dict of masks per annotated frame.

A file is {split, sequences, categories}. A sequence has dataset, seq_name, annotated_image_paths, track_category_ids
(track to category) and segmentations: per annotated frame {track: {rle, score}}.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from jaxtyping import Int64

from pipelines.datasets.annotations import Category, Mask, PredictedTrack, read_json
from pipelines.datasets.burst import (
    CATEGORY_COUNT,
    BurstDetections,
    BurstGroundTruth,
    BurstPredictions,
    BurstSequence,
)
from pipelines.metrics import run_lengths
from pipelines.storage import Storage

_T = TypeVar("_T")


def read_ground_truth(path: str, *, strict: bool) -> BurstGroundTruth:
    """Reads a ground truth file such as `all_classes.json`.

    Args:
        path: the file.
        strict: refuses masks without pixels, categories that LVIS v0.5 lacks, and a file that does not name its
            categories, which BURST's evaluator accepts.

    Raises:
        ValueError: names file, sequence, frame, track, value and remedy.
    """
    document, sha256 = read_json(path)
    reader = _Reader(path, strict)
    split = reader.get(document, "split", str, "the file")
    sequences = [reader.sequence(item, split) for item in reader.get(document, "sequences", list, "the file")]
    for name, times in Counter(sequence.name for sequence in sequences).items():
        if times > 1:
            reader.fail(f"sequence {name}", f"is listed {times} times; list it once")
    categories = reader.categories(document)
    return BurstGroundTruth(
        path=path,
        sha256=sha256,
        split=split,
        sequences=tuple(sequences),
        categories=categories,
        warnings=dict(reader.warnings),
    )


def read_predictions(path: str, ground_truth: BurstGroundTruth, *, strict: bool) -> BurstPredictions:
    """Reads a result file. Sequences are found by dataset and seq_name, frames by image path.

    Predictions on frames that are not annotated are left out.

    Args:
        path: the file.
        ground_truth: whose sequences the predictions are for.
        strict: refuses what BURST's evaluator accepts but no result should have: sequences that the ground truth lacks,
            missing sequences and frames, another frame size, unknown categories, missing scores or ones that are not
            finite, masks without pixels. Otherwise these are counted in `warnings`, and so is track id 0, which the
            evaluator takes for none, in both cases.

    Raises:
        ValueError: names file, sequence, frame, track, value and remedy.
    """
    document, sha256 = read_json(path)
    reader = _Reader(path, strict)
    if isinstance(document, dict) and document.get("split", ground_truth.split) != ground_truth.split:
        reader.fail("the file", f"split is {document['split']!r}; the ground truth's is {ground_truth.split!r}")
    items: dict[str, list[Any]] = {sequence.name: [] for sequence in ground_truth.sequences}
    for item in reader.get(document, "sequences", list, "the file"):
        name = reader.name(item, ground_truth.split)
        if name not in items:
            reader.tolerate("unknown_sequences", f"sequence {name}", "is not in the ground truth; leave it out")
        elif items[name]:
            reader.tolerate("repeated_sequences", f"sequence {name}", "is listed before; list it once")
        items.setdefault(name, []).append(item)
    sequences = tuple(reader.predictions(items[sequence.name], sequence) for sequence in ground_truth.sequences)
    return BurstPredictions(path=path, sha256=sha256, sequences=sequences, warnings=dict(reader.warnings))


def write_predictions(path: str, ground_truth: BurstGroundTruth, sequences: Sequence[BurstDetections]) -> None:
    """Writes a result file: the JSON of the ground truth with the predictions' tracks, categories, scores and masks.

    Masks without pixels are left out. The file appears whole or not at all.

    Args:
        path: the file; its folder is made if missing.
        ground_truth: whose file is read again.
        sequences: the predictions of each of its sequences.

    Raises:
        ValueError: the ground truth file has changed; a track id below 1; a track with several categories; a score
            that is not finite; a broken mask.
    """
    document, sha256 = read_json(ground_truth.path)
    if sha256 != ground_truth.sha256:
        raise ValueError(f"{ground_truth.path}: has changed since it was read; read it again")
    reader = _Reader(path, True)
    for item, sequence, rows in zip(document["sequences"], ground_truth.sequences, sequences, strict=True):
        here = [f"sequence {sequence.name}, frame {sequence.image_paths[f]}" for f in rows.frame]
        where = [f"{frame}, track {track}" for frame, track in zip(here, rows.track_id, strict=True)]
        areas = reader.areas(rows.counts, (sequence.height, sequence.width), where)
        categories: dict[str, int] = {}
        segmentations: list[dict[str, Any]] = [{} for _ in sequence.image_paths]
        for row in np.flatnonzero(areas):
            track, category, score = rows.track_id[row].item(), rows.category_id[row].item(), rows.score[row].item()
            if track < 1 or not math.isfinite(score):
                reader.fail(where[row], f"score is {score}; give finite scores, and ids from 1")
            if categories.setdefault(str(track), category) != category:
                reader.fail(where[row], f"category is {category}, before {categories[str(track)]}; give a track one")
            entry = {"rle": rows.counts[row].decode(), "score": score}
            if segmentations[rows.frame[row]].setdefault(str(track), entry) is not entry:
                reader.fail(where[row], "occurs twice in the frame; give ids that are unique")
        item |= {"track_category_ids": categories, "segmentations": segmentations}
    target = Path(path)
    with Storage(str(target.parent)).write(target.name) as file:
        file.write(json.dumps(document, separators=(",", ":")).encode())


def write_tracks(path: str, ground_truth: BurstGroundTruth, tracks: Iterable[PredictedTrack]) -> None:
    """Writes whole tracks as a result file, as `write_predictions` does.

    Args:
        path: the file; its folder is made if missing.
        ground_truth: whose file is read again.
        tracks: their videos are those of `BurstGroundTruth.videos`, with a mask or None per frame. In its sequence,
            tracks are numbered from 1; a track's score is that of each of its masks.

    Raises:
        ValueError: as `write_predictions`; an unknown video; another number of masks than the video has frames; a mask
            of another size.
    """
    rows: list[list[tuple[int, int, PredictedTrack, bytes]]] = [[] for _ in ground_truth.sequences]
    numbers = Counter[int]()
    for track in tracks:
        if not 1 <= track.video_id <= len(rows):
            raise ValueError(f"{path}: video id {track.video_id}; give ids from 1 to {len(rows)}")
        sequence = ground_truth.sequences[track.video_id - 1]
        numbers[track.video_id] += 1
        where = f"{path}: sequence {sequence.name}, track {numbers[track.video_id]}"
        if len(track.masks) != len(sequence.image_paths):
            raise ValueError(f"{where}: {len(track.masks)} masks for {len(sequence.image_paths)} frames; give one each")
        for frame, mask in enumerate(track.masks):
            if mask is None:
                continue
            if mask[:2] != (sequence.height, sequence.width):
                size = f"{mask.height}x{mask.width}"
                raise ValueError(f"{where}: a mask of {size}; give {sequence.height}x{sequence.width} (height x width)")
            rows[track.video_id - 1].append((frame, numbers[track.video_id], track, mask.counts))
    write_predictions(path, ground_truth, [_detections(its) for its in rows])


def _detections(rows: list[tuple[int, int, PredictedTrack, bytes]]) -> BurstDetections:
    return BurstDetections(
        frame=np.array([frame for frame, _, _, _ in rows], np.int64),
        track_id=np.array([number for _, number, _, _ in rows], np.int64),
        category_id=np.array([track.category_id for _, _, track, _ in rows], np.int64),
        score=np.array([track.score for _, _, track, _ in rows], np.float64),
        counts=tuple(counts for _, _, _, counts in rows),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    where: str
    track_id: int
    category_id: int
    score: float
    counts: bytes


class _Reader:
    """Checks the content of a file; counts in `warnings` what it tolerates."""

    def __init__(self, path: str, strict: bool) -> None:
        self.path, self.strict, self.warnings = path, strict, Counter[str]()

    def fail(self, where: str, message: str) -> NoReturn:
        raise ValueError(f"{self.path}: {where}: {message}")

    def tolerate(self, kind: str, where: str, message: str) -> None:
        if self.strict:
            self.fail(where, message)
        self.warnings[kind] += 1

    def get(self, item: Any, key: str, kind: type[_T], where: str) -> _T:
        value = item.get(key) if isinstance(item, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            self.fail(where, f"{key} is {str(value)[:60]!r}; give a {kind.__name__}")
        return value

    def integers(self, item: Any, key: str, where: str) -> frozenset[int]:
        values = self.get(item, key, list, where)
        if not all(type(value) is int for value in values):
            self.fail(where, f"{key} is {str(values)[:60]}; give a list of category ids")
        return frozenset(values)

    def paths(self, item: Any, where: str) -> tuple[str, ...]:
        values = self.get(item, "annotated_image_paths", list, where)
        if not all(isinstance(value, str) for value in values):
            self.fail(where, f"annotated_image_paths is {str(values)[:60]}; give a list of paths")
        return tuple(values)

    def name(self, item: Any, split: str) -> str:
        dataset, name = (self.get(item, key, str, "a sequence") for key in ("dataset", "seq_name"))
        return f"{split}/{dataset}/{name}"

    def categories(self, document: Any) -> tuple[Category, ...]:
        if "categories" not in document:
            self.tolerate("missing_categories", "the file", "has no categories; list their ids and names")
            return ()
        return tuple(
            Category(id=self.get(item, "id", int, "a category"), name=self.get(item, "name", str, "a category"))
            for item in self.get(document, "categories", list, "the file")
        )

    def sequence(self, item: Any, split: str) -> BurstSequence:
        name = self.name(item, split)
        where = f"sequence {name}"
        height, width = (self.get(item, key, int, where) for key in ("height", "width"))
        paths = self.paths(item, where)
        if height < 1 or width < 1 or len(set(paths)) < len(paths):
            self.fail(where, f"is {width}x{height} with {len(paths)} frames; give a size and frames that differ")
        frames = dict(enumerate(self.rows(item, where, scored=False)))
        return BurstSequence(
            name=name,
            height=height,
            width=width,
            image_paths=paths,
            times=np.array([self.time(path, where) for path in paths], np.int64),
            negative=self.integers(item, "neg_category_ids", where),
            not_exhaustive=self.integers(item, "not_exhaustive_category_ids", where),
            objects=self.table(frames, (height, width)),
        )

    def time(self, path: str, where: str) -> int:
        """The number behind the last "_" of a file name, as BURST's evaluator takes it."""
        stem = path.replace(".jpg", "").replace(".png", "").replace("frame", "")
        try:
            return int(stem.rpartition("_")[2])
        except ValueError:
            self.fail(where, f"frame {path!r} has no number at its end; name frames such as frame0001.jpg")

    def predictions(self, items: Sequence[Any], sequence: BurstSequence) -> BurstDetections:
        """What the file has for a sequence, once, or several times, or not at all."""
        where = f"sequence {sequence.name}"
        if not items:
            self.tolerate("missing_sequences", where, "is missing; list it, with empty segmentations")
        place = {path: frame for frame, path in enumerate(sequence.image_paths)}
        frames: dict[int, list[_Row]] = {}
        for item in items:
            size = (item.get("height", sequence.height), item.get("width", sequence.width))
            if size != (sequence.height, sequence.width):
                real = f"{sequence.height}x{sequence.width}"
                self.tolerate("other_sizes", where, f"is {size[0]}x{size[1]} (height x width); give its size, {real}")
            paths = self.paths(item, where)
            for path in sorted(place.keys() - set(paths)):
                self.tolerate("missing_frames", where, f"lacks frame {path}; list all annotated frames")
            for path, rows in zip(paths, self.rows(item, where, scored=True), strict=True):
                if path in place:
                    frames.setdefault(place[path], []).extend(rows)
        return self.table(frames, (sequence.height, sequence.width))

    def rows(self, item: Any, where: str, *, scored: bool) -> Iterator[list[_Row]]:
        """The masks of each frame of a sequence."""
        paths = self.paths(item, where)
        frames = self.get(item, "segmentations", list, where)
        categories = self.get(item, "track_category_ids", dict, where)
        if len(frames) != len(paths):
            self.fail(where, f"{len(frames)} segmentations for {len(paths)} frames; give one per frame, {{}} if empty")
        for path, masks in zip(paths, frames, strict=True):
            if not isinstance(masks, dict):
                self.fail(f"{where}, frame {path}", f"is {str(masks)[:40]}; give a dict of tracks, {{}} if empty")
            yield [
                self.row(track, mask, categories.get(track), f"{where}, frame {path}, track {track}", scored)
                for track, mask in masks.items()
            ]

    def row(self, track: str, mask: Any, category: Any, where: str, scored: bool) -> _Row:
        counts = self.get(mask, "rle", str, where)
        if scored:
            category = mask.get("category_id", category)
        elif isinstance(category, str) and category.isdecimal():
            category = int(category)
        if type(category) is not int:
            self.fail(where, f"category is {category!r}; give an id in track_category_ids")
        if not track.isdecimal():
            self.fail(where, "the track is not a number; give numbers from 1")
        if scored and int(track) == 0:
            self.warnings["track_id_0"] += 1  # strict scores take it for an id, so that it is never refused
        if not 1 <= category <= CATEGORY_COUNT:
            self.tolerate("unknown_categories", where, f"category is {category}; give LVIS v0.5 ids, 1 to 1230")
        if scored and "score" not in mask:
            self.tolerate("missing_scores", where, "has no score, which counts as 1; give one")
        score = mask.get("score", 1.0) if scored else 1.0
        if not isinstance(score, int | float) or isinstance(score, bool):
            self.fail(where, f"score is {score!r}; give a number")
        if not math.isfinite(score):
            self.tolerate("scores_not_finite", where, f"score is {score}; give a finite one")
        return _Row(where=where, track_id=int(track), category_id=category, score=score, counts=counts.encode())

    def table(self, frames: dict[int, list[_Row]], size: tuple[int, int]) -> BurstDetections:
        """The rows of a sequence as columns, frame by frame, after a check of ids and masks."""
        for its in frames.values():
            seen: set[int] = set()
            for row in its:
                if row.track_id in seen:
                    self.fail(row.where, "occurs twice in the frame; give ids that are unique")
                seen.add(row.track_id)
        rows = [row for its in frames.values() for row in its]
        areas = self.areas([row.counts for row in rows], size, [row.where for row in rows])
        for empty in np.flatnonzero(areas == 0):
            self.tolerate("masks_without_pixels", rows[empty].where, "the mask has no pixels; leave it out")
        return BurstDetections(
            frame=np.repeat(np.fromiter(frames, np.int64), [len(its) for its in frames.values()]),
            track_id=np.array([row.track_id for row in rows], np.int64),
            category_id=np.array([row.category_id for row in rows], np.int64),
            score=np.array([row.score for row in rows], np.float64),
            counts=tuple(row.counts for row in rows),
        )

    def areas(self, counts: Sequence[bytes], size: tuple[int, int], where: Sequence[str]) -> Int64[np.ndarray, "n"]:
        """Pixels of masks; broken ones and those of another size are refused."""
        try:
            return run_lengths.read([Mask(*size, each) for each in counts]).areas
        except run_lengths.CorruptMaskError as error:
            self.fail(where[error.position], f"rle: {error.reason}; write the file again")
