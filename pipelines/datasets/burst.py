"""BURST (Athar et al., WACV 2023): ground truth and results as JSON, one dict of masks per annotated frame.

A file is {split, sequences}. A sequence has dataset, seq_name, annotated_image_paths, track_category_ids (track to
category) and segmentations: per annotated frame {track: {rle, score}}. Categories are those of LVIS v0.5, as in TAO.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pipelines.datasets.annotations import read_json
from pipelines.storage import Storage

CATEGORY_COUNT = 1230  # LVIS v0.5: ids 1 to 1230

# fmt: off
# Distractors of "Opening up Open-World Tracking" (Liu et al., CVPR 2022), as listed in TrackEval's BURST classes.
NOT_EVALUATED = frozenset(
    {20, 63, 108, 180, 188, 204, 212, 247, 303, 403, 407, 415, 490, 504, 507, 513, 529, 567, 569, 588, 672, 691,
     702, 708, 711, 720, 736, 737, 798, 813, 815, 827, 831, 851, 877, 883, 912, 971, 976, 1130, 1133, 1134, 1169,
     1184, 1220}
)

# TAO's categories with `merged`: these are counted as those.
MERGED = {504: 347, 720: 347, 912: 529, 967: 529, 207: 554, 153: 943, 201: 1175}

# The 78 categories that COCO has too; the list of BURST's evaluation script.
COMMON = frozenset(
    {4, 13, 34, 35, 36, 41, 45, 58, 60, 78, 79, 81, 91, 95, 99, 118, 126, 133, 139, 154, 174, 185, 211, 221, 229,
     235, 237, 276, 299, 347, 371, 382, 392, 428, 429, 452, 475, 480, 502, 544, 579, 621, 625, 642, 699, 714, 717,
     729, 747, 779, 805, 829, 852, 896, 926, 937, 961, 979, 980, 982, 993, 1001, 1018, 1038, 1057, 1091, 1097, 1099,
     1115, 1117, 1122, 1132, 1135, 1144, 1155, 1162, 1215, 1229}
)
# fmt: on

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, eq=False)
class BurstDetections:
    """Masks of a sequence, a row each, frame by frame in the order of the file.

    Attributes:
        frame: position among the sequence's annotated frames.
        track_id: unique within a frame.
        category_id: of the track, or of this mask if the file says so; neither merged nor left out yet.
        score: 1 in a ground truth, and where predictions have none.
        counts: COCO compressed run lengths for the size of the sequence.
    """

    frame: Int64[np.ndarray, "n"]
    track_id: Int64[np.ndarray, "n"]
    category_id: Int64[np.ndarray, "n"]
    score: Float64[np.ndarray, "n"]
    counts: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.counts)

    def select(self, rows: Int64[np.ndarray, "m"] | Bool[np.ndarray, "n"]) -> "BurstDetections":
        """These rows, in this order."""
        return BurstDetections(
            frame=self.frame[rows],
            track_id=self.track_id[rows],
            category_id=self.category_id[rows],
            score=self.score[rows],
            counts=tuple(self.counts[row] for row in np.arange(len(self))[rows]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class BurstSequence:
    """A sequence of a ground truth.

    Attributes:
        name: split/dataset/seq_name.
        height: pixels.
        width: pixels.
        image_paths: of its annotated frames.
        times: the frames' numbers in their file names, by which they are ordered in time.
        negative: categories that were looked for in the sequence and are not there.
        not_exhaustive: categories of which not every object is annotated.
        objects: what is annotated.
    """

    name: str
    height: int
    width: int
    image_paths: tuple[str, ...]
    times: Int64[np.ndarray, "F"]
    negative: frozenset[int]
    not_exhaustive: frozenset[int]
    objects: BurstDetections


@dataclass(frozen=True, kw_only=True, eq=False)
class BurstGroundTruth:
    """A ground truth file, its sha256, and how often something in it was tolerated, by kind."""

    path: str
    sha256: str
    split: str
    sequences: tuple[BurstSequence, ...]
    warnings: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class BurstPredictions:
    """A result file: `sequences` are those of the ground truth, `warnings` how often something was tolerated."""

    path: str
    sha256: str
    sequences: tuple[BurstDetections, ...]
    warnings: Mapping[str, int]

    def aligned(self, old: BurstGroundTruth, new: BurstGroundTruth) -> "BurstPredictions":
        """The predictions, read for `old`, for the sequences and frames of another ground truth.

        Raises:
            ValueError: if the other one has a sequence or a frame that `old` lacks: its predictions were not read.
        """
        read = {each.name: (each, rows) for each, rows in zip(old.sequences, self.sequences, strict=True)}
        moved = []
        for sequence in new.sequences:
            before, rows = read.get(sequence.name, (None, None))
            if before is None or rows is None or not set(sequence.image_paths) <= set(before.image_paths):
                raise ValueError(
                    f"{new.path}: {old.path} lacks sequence {sequence.name}, or a frame; use files of one set"
                )
            place = {path: frame for frame, path in enumerate(sequence.image_paths)}
            frames = np.array([place.get(path, -1) for path in before.image_paths], np.int64)
            moved.append(replace(rows, frame=frames[rows.frame]).select(frames[rows.frame] >= 0))
        return replace(self, sequences=tuple(moved))


def read_ground_truth(path: str, *, strict: bool) -> BurstGroundTruth:
    """Reads a ground truth file such as `all_classes.json`.

    Args:
        path: the file.
        strict: refuses masks without pixels and categories that LVIS v0.5 lacks, which BURST's evaluator accepts.

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
    return BurstGroundTruth(
        path=path, sha256=sha256, split=split, sequences=tuple(sequences), warnings=dict(reader.warnings)
    )


def read_predictions(path: str, ground_truth: BurstGroundTruth, *, strict: bool) -> BurstPredictions:
    """Reads a result file. Sequences are found by dataset and seq_name, frames by image path.

    Predictions on frames that are not annotated are left out.

    Args:
        path: the file.
        ground_truth: whose sequences the predictions are for.
        strict: refuses what BURST's evaluator accepts but no result should have: sequences that the ground truth lacks,
            missing sequences and frames, another frame size, unknown categories, track id 0, missing scores or ones
            that are not finite, masks without pixels. Otherwise these are counted in `warnings`.

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
            self.tolerate("track_id_0", where, "the evaluator lets others match its object again; give ids from 1")
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
        """Pixels of masks; broken ones and those of another size are refused: pycocotools would hang or read beyond.

        A number is written in groups of 5 bits from the lowest up, of which all but the last have 32 added, and 48 for
        printing. From a mask's fourth on, a run is stored as its difference to the one two before.
        """
        if not counts:
            return np.zeros(0, np.int64)
        stop = np.cumsum([len(each) for each in counts])
        text = np.frombuffer(b"".join(counts) or b" ", np.uint8).astype(np.int64) - 48
        ends = np.flatnonzero(text < 32)
        first = np.append(0, ends[:-1] + 1)
        owner, width = np.searchsorted(stop, ends, side="right"), ends - first + 1
        outside = np.searchsorted(stop, np.flatnonzero((text < 0) | (text > 63)), side="right")
        open_end = np.setdiff1d(stop - 1, ends, assume_unique=True)
        broken = np.concatenate([outside, owner[width > 7], np.searchsorted(stop, open_end, side="right")])
        empty = [mask for mask, each in enumerate(counts) if not each]
        if empty or len(broken):
            self.fail(where[min(empty, default=min(broken, default=0))], "rle is broken; give compressed COCO counts")
        groups = (text & 31) << 5 * (np.arange(len(text)) - np.repeat(first, width))
        numbers = np.add.reduceat(groups, first) - np.where(text[ends] & 16, 1 << 5 * width, 0)
        place = np.arange(len(ends)) - np.searchsorted(owner, owner)
        chain = 3 * owner + np.where(place == 0, 0, 1 + place % 2)  # within which runs add up
        order = np.lexsort((place, chain))
        total, start = numbers[order].cumsum(), np.searchsorted(chain[order], chain[order])
        runs = np.empty_like(numbers)
        runs[order] = total - (total - numbers[order])[start]
        pixels = np.bincount(owner, runs)
        wrong = np.union1d(owner[runs < 0], np.flatnonzero(pixels != size[0] * size[1]))
        if len(wrong):
            here = f"rle has {pixels[wrong[0]]:.0f} pixels; the frame has {size[0]}x{size[1]} (height x width)"
            self.fail(where[wrong[0]], f"{here}; give compressed COCO counts of that size")
        return np.bincount(owner, np.where(place % 2, runs, 0)).astype(np.int64)
