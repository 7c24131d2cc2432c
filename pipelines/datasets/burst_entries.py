"""Reads and checks entries of BURST's files."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np

from pipelines.datasets import mask_table, run_lengths
from pipelines.datasets.annotations import Category, Mask
from pipelines.datasets.burst import CATEGORY_COUNT, BurstDetections, BurstSequence
from pipelines.datasets.documents import NOTHING, Lifted, OddityError
from pipelines.datasets.mask_table import MaskRows, MaskTable
from pipelines.datasets.run_lengths import RunLengths

_T = TypeVar("_T")

_TOO_LARGE = 2**63
_LARGEST_SIDE = 2**31
_DIGITS = 19
"""Decimal digits that may be too many for an int64."""


class _Row(NamedTuple):
    """A mask of a frame; `mask` is a row of the file's table, or run lengths."""

    path: str
    track: str
    track_id: int
    category_id: int
    score: float
    mask: int | bytes


class BurstReader:
    """Reads entries of a document; errors name the file.

    Args:
        path: the file, for errors.
        strict: whether `tolerate` refuses; otherwise it counts.
        lifted: run lengths that were lifted out of the file.

    Attributes:
        warnings: oddities that were accepted, and how often each occurs.
    """

    def __init__(self, path: str, strict: bool, lifted: Lifted = NOTHING) -> None:
        self.path, self.strict, self.warnings = path, strict, Counter[str]()
        self._table, self._lifted = MaskTable(lifted), len(lifted.begins)

    def fail(self, where: str, message: str) -> NoReturn:
        """Refuses the file."""
        raise ValueError(f"{self.path}: {where}: {message}")

    def tolerate(self, kind: str, where: str, message: str) -> None:
        """Refuses or counts an oddity that BURST's evaluator accepts."""
        if self.strict:
            raise OddityError(f"{self.path}: {where}: {message}")
        self.warnings[kind] += 1

    def get(self, item: Any, key: str, kind: type[_T], where: str) -> _T:
        """Returns a required value; booleans do not pass as numbers."""
        value = item.get(key) if isinstance(item, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            self.fail(where, f"{key} is {str(value)[:60]!r}; give a {kind.__name__}")
        return value

    def _integers(self, item: Any, key: str, where: str) -> frozenset[int]:
        values = self.get(item, key, list, where)
        if not all(type(value) is int for value in values):
            self.fail(where, f"{key} is {str(values)[:60]}; give a list of category ids")
        return frozenset(values)

    def _paths(self, item: Any, where: str) -> tuple[str, ...]:
        values = self.get(item, "annotated_image_paths", list, where)
        if not all(isinstance(value, str) for value in values):
            self.fail(where, f"annotated_image_paths is {str(values)[:60]}; give a list of paths")
        return tuple(values)

    def name(self, item: Any, split: str) -> str:
        """Returns the name of a sequence: split/dataset/seq_name."""
        dataset, name = (self.get(item, key, str, "a sequence") for key in ("dataset", "seq_name"))
        return f"{split}/{dataset}/{name}"

    def categories(self, document: Any) -> tuple[Category, ...]:
        """Reads the list of categories."""
        if "categories" not in document:
            self.tolerate("missing_categories", "the file", "has no categories; list their ids and names")
            return ()
        return tuple(
            Category(id=self.get(item, "id", int, "a category"), name=self.get(item, "name", str, "a category"))
            for item in self.get(document, "categories", list, "the file")
        )

    def sequence(self, item: Any, split: str) -> BurstSequence:
        """Reads a sequence of a ground truth."""
        name = self.name(item, split)
        where = f"sequence {name}"
        height, width = (self.get(item, key, int, where) for key in ("height", "width"))
        paths = self._paths(item, where)
        if not (0 < height < _LARGEST_SIDE and 0 < width < _LARGEST_SIDE) or len(set(paths)) < len(paths):
            self.fail(where, f"is {width}x{height} with {len(paths)} frames; give a size and frames that differ")
        frames = dict(enumerate(self._rows(item, where, scored=False)))
        return BurstSequence(
            name=name,
            height=height,
            width=width,
            image_paths=paths,
            times=np.array([self._time(path, where) for path in paths], np.int64),
            negative=self._integers(item, "neg_category_ids", where),
            not_exhaustive=self._integers(item, "not_exhaustive_category_ids", where),
            objects=self._detections(where, frames, (height, width)),
        )

    def _time(self, path: str, where: str) -> int:
        """Returns the number after the last "_" of a file name, as BURST's evaluator does."""
        stem = path.replace(".jpg", "").replace(".png", "").replace("frame", "")
        try:
            number = int(stem.rpartition("_")[2])
        except ValueError:
            self.fail(where, f"frame {path!r} has no number at its end; name frames such as frame0001.jpg")
        if abs(number) >= _TOO_LARGE:
            self.fail(where, f"frame {path!r} has too large a number; name frames such as frame0001.jpg")
        return number

    def predictions(self, items: Sequence[Any], sequence: BurstSequence) -> BurstDetections:
        """Reads the predictions for a sequence, which the file may list once, several times or not at all."""
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
            paths = self._paths(item, where)
            for path in sorted(place.keys() - set(paths)):
                self.tolerate("missing_frames", where, f"lacks frame {path}; list all annotated frames")
            for path, rows in zip(paths, self._rows(item, where, scored=True), strict=True):
                if path in place:
                    frames.setdefault(place[path], []).extend(rows)
        return self._detections(where, frames, (sequence.height, sequence.width))

    def _rows(self, item: Any, where: str, *, scored: bool) -> Iterator[list[_Row]]:
        """Yields the masks of each frame of a sequence."""
        paths = self._paths(item, where)
        frames = self.get(item, "segmentations", list, where)
        categories = self.get(item, "track_category_ids", dict, where)
        if len(frames) != len(paths):
            self.fail(where, f"{len(frames)} segmentations for {len(paths)} frames; give one per frame, {{}} if empty")
        for path, masks in zip(paths, frames, strict=True):
            if not isinstance(masks, dict):
                self.fail(f"{where}, frame {path}", f"is {str(masks)[:40]}; give a dict of tracks, {{}} if empty")
            yield [self._row(where, path, track, mask, categories.get(track), scored) for track, mask in masks.items()]

    def _row(self, sequence: str, path: str, track: str, mask: Any, category: Any, scored: bool) -> _Row:
        counts = mask.get("rle") if isinstance(mask, dict) else None
        if type(counts) is not int or counts >= self._lifted:
            counts = self.get(mask, "rle", str, _where(sequence, path, track)).encode()
        if scored:
            category = mask.get("category_id", category)
        elif isinstance(category, str) and category.isdecimal():
            category = int(category)
        if type(category) is not int or abs(category) >= _TOO_LARGE:
            self.fail(_where(sequence, path, track), f"category is {category!r}; give an id in track_category_ids")
        if not track.isdecimal() or len(track) >= _DIGITS:
            self.fail(_where(sequence, path, track), "the track is not a number; give numbers from 1, below 10¹⁸")
        number = int(track)
        if scored and number == 0:
            self.warnings["track_id_0"] += 1  # strict scores count it as an id, so it is never refused
        if not 1 <= category <= CATEGORY_COUNT:
            what = f"category is {category}; give LVIS v0.5 ids, 1 to 1230"
            self.tolerate("unknown_categories", _where(sequence, path, track), what)
        if scored and "score" not in mask:
            what = "has no score, which counts as 1; give one"
            self.tolerate("missing_scores", _where(sequence, path, track), what)
        score = mask.get("score", 1.0) if scored else 1.0
        if type(score) is not float and (type(score) is not int or abs(score) >= _TOO_LARGE):
            self.fail(_where(sequence, path, track), f"score is {score!r}; give a number")
        if not math.isfinite(score):
            what = f"score is {score}; give a finite one"
            self.tolerate("scores_not_finite", _where(sequence, path, track), what)
        return _Row(path, track, number, category, score, counts)

    def _detections(self, sequence: str, frames: dict[int, list[_Row]], size: tuple[int, int]) -> BurstDetections:
        """Turns the rows of a sequence into columns, frame by frame; checks ids and masks."""
        for members in frames.values():
            seen: set[int] = set()
            for row in members:
                if row.track_id in seen:
                    what = "occurs twice in the frame; give ids that are unique"
                    self.fail(_where(sequence, row.path, row.track), what)
                seen.add(row.track_id)
        rows = [row for members in frames.values() for row in members]
        masks = self._masks([row.mask for row in rows], size)
        runs = self.read(masks, lambda number: _where(sequence, rows[number].path, rows[number].track))
        for empty in np.flatnonzero(runs.areas == 0):
            where = _where(sequence, rows[empty].path, rows[empty].track)
            self.tolerate("masks_without_pixels", where, "the mask has no pixels; leave it out")
        return BurstDetections(
            frame=np.repeat(np.fromiter(frames, np.int64), [len(members) for members in frames.values()]),
            track_id=np.array([row.track_id for row in rows], np.int64),
            category_id=np.array([row.category_id for row in rows], np.int64),
            score=np.array([row.score for row in rows], np.float64),
            masks=masks,
            boxes=run_lengths.boxes(runs),
        )

    def _masks(self, masks: list[int | bytes], size: tuple[int, int]) -> Sequence[Mask]:
        lifted = [mask for mask in masks if isinstance(mask, int)]
        rows = np.array(lifted, np.int64)
        self._table.sizes[rows] = size
        if len(lifted) == len(masks):
            return MaskRows(self._table, rows)
        return tuple(
            Mask(*size, mask if isinstance(mask, bytes) else self._table.text(mask).encode()) for mask in masks
        )

    def read(self, masks: Sequence[Mask], where: Callable[[int], str]) -> RunLengths:
        """Reads masks; refuses broken ones, whose place `where` names."""
        try:
            return mask_table.read([masks])
        except run_lengths.CorruptMaskError as error:
            self.fail(where(error.position), f"rle: {error.reason}; write the file again")


def _where(sequence: str, path: str, track: str) -> str:
    return f"{sequence}, frame {path}, track {track}"
