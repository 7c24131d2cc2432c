"""Reads and checks values of a YouTube-VIS file."""

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np

from pipelines.datasets import mask_table
from pipelines.datasets.annotations import AnnotatedVideo, Id, Listed, Mask
from pipelines.datasets.documents import NOTHING, Lifted, OddityError
from pipelines.datasets.mask_table import ABSENT, MaskRows, MaskTable
from pipelines.datasets.run_lengths import find_corrupt

_T = TypeVar("_T")

_SIZE_AND_COUNTS = itemgetter("size", "counts")
_FARTHEST = 1_000_000  # pixels; pycocotools crashes at coordinates that are too large for it
_KINDS = {int: "a whole number", float: "a number", str: "a text", list: "a list", object: "a whole number"}


class EntryReader:
    """Reads values of a document; errors name the file.

    Args:
        path: the file, for errors.
        strict: whether `odd` refuses; otherwise it counts.
        problems: list that collects the errors of single entries, which are then left out; None raises the first.
        lifted: run lengths that were lifted out of the file.

    Attributes:
        warnings: oddities that were accepted, and how often each occurs.
    """

    def __init__(self, path: str, strict: bool, problems: list[str] | None = None, lifted: Lifted = NOTHING) -> None:
        self.path = path
        self.strict = strict
        self.problems = problems
        self.warnings: Counter[str] = Counter()
        self._table = MaskTable(lifted)
        self._masks: dict[tuple[Mask | None, ...], tuple[Mask | None, ...]] = {}
        self._spelled: dict[tuple[int, bytes, int], list[MaskRows]] = {}

    def error(self, where: str, what: str, remedy: str) -> ValueError:
        """Returns an error to raise."""
        return ValueError(f"{self.path}: {where} {what}; {remedy}")

    def refuse(self, error: ValueError) -> None:
        """Raises an error, or keeps it as a problem."""
        if self.problems is None:
            raise error
        self.problems.append(str(error))

    def read_each(self, entries: list[Any], read: Callable[[int, Any], _T]) -> tuple[_T, ...]:
        """Returns the result of `read` for each position and entry, without those that it refuses."""
        values = []
        for position, entry in enumerate(entries):
            try:
                values.append(read(position, entry))
            except ValueError as error:
                self.refuse(error)
        return tuple(values)

    def odd(self, where: str, what: str, remedy: str, warning: str) -> None:
        """Refuses or counts an oddity that the official tool accepts."""
        if self.strict:
            raise OddityError(self.error(where, what, remedy))
        self.warnings[warning] += 1

    def entries(self, document: dict[str, Any], name: str) -> list[Any]:
        """Returns a list of the document."""
        value = document.get(name)
        if not isinstance(value, list):
            raise self.error("the file", f"has no list {name!r}", "give a file of annotations")
        return value

    def value(self, where: str, entry: Any, name: str, kind: type) -> Any:
        """Returns a required value; integers pass as floats, but neither booleans nor texts pass as numbers."""
        if not isinstance(entry, dict):
            raise self.error(where, f"is {entry!r:.60}", "give an object")
        if name not in entry:
            raise self.error(where, f"has no {name!r}", "add it")
        value = entry[name]
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise self.error(where, f"has {name!r} {value!r:.60}", f"give {_KINDS[kind]}")
        if kind is float and isinstance(value, int) and abs(value) > sys.float_info.max:
            raise self.error(where, f"has {name!r} {value!r:.60}", "give a smaller number")
        return value

    def id(self, where: str, entry: Any, name: str) -> Id:
        """Returns an id, which strict rules want to be a whole number."""
        value: Id = self.value(where, entry, name, object)
        if not is_id(value):
            raise self.error(where, f"has {name!r} {value!r:.60}", "give a whole number")
        if not _is_whole(value) or isinstance(value, float):
            self.odd(where, f"has {name!r} {value!r:.60}", "give a whole number", "ids that are not whole numbers")
        return value

    def numbers(self, kind: str, entries: list[Any]) -> dict[Id, int]:
        """Returns a number for each id of these entries: itself or, if some are not whole, its place in their order.

        Equal scores are ranked by the order of ids, so official tools stop at ids that have none.
        """
        ids = {entry["id"] for entry in entries if isinstance(entry, dict) and is_id(entry.get("id"))}
        if all(map(_is_whole, ids)):
            return {number: int(number) for number in ids}
        if len({isinstance(each, str) for each in ids}) > 1:
            raise self.error("the file", f"has texts and numbers as ids of its {kind}", "give whole numbers")
        return {each: place for place, each in enumerate(sorted(ids), start=1)}

    def check_unique(self, what: str, ids: Iterable[float]) -> None:
        """Refuses an id that occurs twice."""
        for number in (number for number, times in Counter(ids).items() if times > 1):
            self.refuse(self.error(f"{what} id {number}", "occurs more than once", "give every one its own id"))

    def last_of_each(self, what: str, listed: tuple[Listed, ...]) -> tuple[Listed, ...]:
        """Returns videos or categories by id; of those with the same id, official tools know the last one."""
        if self.strict:
            self.check_unique(what, (each.id for each in listed))
        last = {each.id: each for each in listed}
        if len(last) < len(listed):
            self.warnings[f"{what} ids that occur more than once: the last one counts"] += len(listed) - len(last)
        return tuple(last.values())

    def masks(self, where: str, entry: Any, video: AnnotatedVideo | None, polygons: bool) -> Sequence[Mask | None]:
        """Returns the segmentations; `polygons` also allows plain run lengths.

        Equal segmentations become one object: models give a track several labels, and its masks are then scored once.
        """
        segmentations = self.value(where, entry, "segmentations", list)
        if video is not None and video.length not in (None, len(segmentations)):
            self.odd(
                where,
                f"has {len(segmentations)} segmentations, but video {video.id} has {video.length} frames",
                "give one per frame, null where the object is absent",
                "tracks whose number of segmentations is not their video's length: surplus frames do not count",
            )
        if video is not None and (rows := self._rows(segmentations, video)) is not None:
            return self._shared(rows, video)
        masks = tuple(
            self._mask(f"{where}, frame {t},", value, video, polygons) for t, value in enumerate(segmentations)
        )
        for t, mask in enumerate(masks):
            if mask is not None and video is not None and mask[:2] != (video.height, video.width):
                self.odd(
                    f"{where}, frame {t},",
                    f"is {mask.height} x {mask.width}, but video {video.id} is {video.height} x {video.width}",
                    "give masks of the video's size",
                    "masks whose size is not their video's",
                )
        return self._masks.setdefault(masks, masks)

    def _rows(self, segmentations: list[Any], video: AnnotatedVideo) -> MaskRows | None:
        """Returns lifted run lengths of the video's size; None if there is anything else among the segmentations."""
        present = [value for value in segmentations if value is not None]
        try:
            pairs = list(map(_SIZE_AND_COUNTS, present))
        except (KeyError, TypeError):
            return None
        size, sizes, found = [video.height, video.width], [size for size, _ in pairs], [row for _, row in pairs]
        # Of all at once: there are millions.
        if sizes.count(size) < len(sizes) or not {*map(type, chain.from_iterable(sizes)), *map(type, found)} <= {int}:
            return None
        if max(found, default=ABSENT) >= len(self._table):
            return None
        rows = np.full(len(segmentations), ABSENT)
        rows[[value is not None for value in segmentations]] = found
        self._table.sizes[found] = size
        return MaskRows(self._table, rows)

    def _shared(self, masks: MaskRows, video: AnnotatedVideo) -> MaskRows:
        """Returns masks of the video that are spelled as these, if there were any before."""
        spelling = self._table.spelling(masks.rows)
        known = self._spelled.setdefault((video.id, (masks.rows == ABSENT).tobytes(), len(spelling)), [])
        for other in known:
            if np.array_equal(self._table.spelling(other.rows), spelling):
                return other
        known.append(masks)
        return masks

    def _mask(self, where: str, segmentation: Any, video: AnnotatedVideo | None, polygons: bool) -> Mask | None:
        if segmentation is None or segmentation in ([], {}):
            return None
        if polygons and isinstance(segmentation, list) and video is not None:
            if not all(_is_polygon(part) for part in segmentation):
                raise self.error(where, f"has {segmentation!r:.60}", "give polygons in pixels as x, y, x, y, x, y, …")
            from pycocotools import mask as coco

            merged = coco.merge(coco.frPyObjects(segmentation, video.height, video.width))
            return Mask(video.height, video.width, merged["counts"])
        size, counts = self.value(where, segmentation, "size", list), segmentation.get("counts")
        if type(counts) is int and counts < len(self._table):
            counts = self._table.text(counts)
        if len(size) != 2 or not all(type(side) is int and 0 < side < 1 << 31 for side in size):
            raise self.error(where, f"has the size {size}", "give height and width in pixels")
        if isinstance(counts, str):
            return Mask(size[0], size[1], counts.encode("ascii", "replace"))
        if not polygons or not isinstance(counts, list):
            raise self.error(where, f"has counts {counts!r:.60}", "give compressed run lengths, as text")
        if not all(type(run) is int and run >= 0 for run in counts) or sum(counts) != size[0] * size[1]:
            raise self.error(where, f"has counts {counts!r:.60}", f"give runs that add up to {size[0]} * {size[1]}")
        from pycocotools import mask as coco

        return Mask(size[0], size[1], coco.frPyObjects({"size": size, "counts": counts}, *size)["counts"])

    def check_masks(self, tracks: list[tuple[str, Sequence[Mask | None]]]) -> list[bool]:
        """Refuses masks that are not run lengths of their size, on which the official tool would count garbage.

        Returns whether each of the tracks, given with its place for errors, is sound; if problems are collected, the
        first mask of a track that is not is one.
        """
        mask_table.check(masks for _, masks in tracks)
        loose = [track for track in tracks if not isinstance(track[1], MaskRows)]
        corrupt = find_corrupt([mask for _, masks in loose for mask in masks if mask is not None])
        if corrupt is None:
            return [True] * len(tracks)
        if self.problems is not None and len(tracks) > 1:
            return [sound for track in tracks for sound in self.check_masks([track])]
        position, reason = corrupt
        places = [(where, t) for where, masks in loose for t, mask in enumerate(masks) if mask is not None]
        self.refuse(self.error("{}, frame {},".format(*places[position]), reason, "write the file again"))
        return [False]


def is_id(value: Any) -> bool:
    """Whether official tools take a value for an id."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int) and not isinstance(value, bool)


def _is_whole(value: Id) -> bool:
    """Whether an id fits into an array of whole numbers."""
    return not isinstance(value, str) and value == int(value) and abs(value) < 1 << 63


def _is_polygon(part: Any) -> bool:
    numbers = isinstance(part, list) and all(type(x) in (int, float) and abs(x) <= _FARTHEST for x in part)
    return numbers and len(part) >= 6 and len(part) % 2 == 0
