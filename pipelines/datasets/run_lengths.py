"""COCO compressed run lengths, read for many masks at once; no mask is ever dense.

`openvis_model.rle.run_lengths` reads a single mask; here it words the error for a mask that the compiled code refuses.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, Integer, UInt8

from pipelines.datasets.annotations import Mask
from pipelines.datasets.compiled import kernel

_BATCH = 1 << 10  # masks per check, so that their runs stay in the cache
_BACKSLASH = 92  # a character of run lengths, which JSON doubles
_NONE = 256  # no character
_MORE = 48 + 32  # from this character on, the number continues
_BITS = 35  # of a number: no frame needs more
# Values of characters: 5 bits of a number, signed in its last character.
_DIGITS = np.array([(c - 48 & 31) - (c - 48 & 16) * 2 * (c < _MORE) for c in range(256)], np.int64)
_ABSENT = Mask(0, 0, b"")


class CorruptMaskError(ValueError):
    """A mask is not COCO compressed run lengths of its frame; has its position among the masks, and the reason."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"mask {position}: {reason}")
        self.position, self.reason = position, reason


class RunLengths(NamedTuple):
    """n decoded masks. Places are pixels counted column by column; runs are of background and foreground in turn.

    Attributes:
        sizes: height and width of the frames, pixels; zeros for an absent mask.
        areas: foreground pixels.
        starts: position in `ends` of each mask's first run; the last entry is the number of runs.
        ends: for each run, the place after its last pixel.
    """

    sizes: Int64[np.ndarray, "n 2"]
    areas: Int64[np.ndarray, "n"]
    starts: Int64[np.ndarray, "n+1"]
    ends: Integer[np.ndarray, "R"]

    def __len__(self) -> int:
        return len(self.areas)


def read(masks: Sequence[Mask | None]) -> RunLengths:
    """Reads masks; None is an absent mask, which differs from a mask without pixels. Frames must have pixels.

    Raises:
        CorruptMaskError: for the first corrupt mask, which pycocotools would silently misread.
    """
    values: list[Any] = list(chain.from_iterable(mask or _ABSENT for mask in masks))
    counts: list[bytes] = values[2::3]
    sizes = np.empty((len(masks), 2), np.int64)
    sizes[:, 0] = np.fromiter(values[::3], np.int64, len(masks))
    sizes[:, 1] = np.fromiter(values[1::3], np.int64, len(masks))
    lengths = np.fromiter(map(len, counts), np.int64, len(counts))
    stops = lengths.cumsum()
    runs, sound = decode(np.frombuffer(b"".join(counts), np.uint8), stops - lengths, stops, sizes, doubled=False)
    if not sound.all():
        raise _corrupt(masks, int(np.argmin(sound)))
    return runs


def decode(
    text: UInt8[np.ndarray, "L"],
    begins: Int64[np.ndarray, "n"],
    stops: Int64[np.ndarray, "n"],
    sizes: Int64[np.ndarray, "n 2"],
    *,
    doubled: bool,
) -> tuple[RunLengths, Bool[np.ndarray, "n"]]:
    """Reads masks in a text; returns them, and which are sound. A mask of size 0 is absent, so it always is.

    Args:
        text: characters of all masks, and any others.
        begins: position of the first character of each mask.
        stops: position after its last character.
        sizes: height and width of the frames, pixels.
        doubled: whether backslashes are doubled, as in JSON.
    """
    n, pixels = len(begins), sizes[:, 0] * sizes[:, 1]
    starts, areas, sound = np.zeros(n + 1, np.int64), np.zeros(n, np.int64), np.zeros(n, bool)
    _count_runs(text, begins, stops, starts, sound)
    numbers = np.empty(np.diff(starts).max(initial=0), np.int64)
    ends = np.empty(starts[-1], np.int32 if pixels.max(initial=0) < 1 << 31 else np.int64)
    _read_runs(
        text, begins, stops, pixels, starts, _DIGITS, _BACKSLASH if doubled else _NONE, numbers, ends, areas, sound
    )
    return RunLengths(sizes, areas, starts, ends), sound


def find_corrupt(masks: Sequence[Mask]) -> tuple[int, str] | None:
    """Returns the position of the first mask that `read` refuses, and why; None if it takes all."""
    for start in range(0, len(masks), _BATCH):
        try:
            read(masks[start : start + _BATCH])
        except CorruptMaskError as error:
            return start + error.position, error.reason
    return None


def boxes(masks: RunLengths) -> Int64[np.ndarray, "n 4"]:
    """Returns x, y, width and height around masks, pixels, as `pycocotools.mask.toBbox`: zeros without pixels."""
    sides = np.zeros((len(masks), 4), np.int64)
    _boxes(masks.sizes, masks.starts, masks.ends, sides)
    return sides


def _corrupt(masks: Sequence[Mask | None], position: int) -> CorruptMaskError:
    from openvis_model import rle  # takes seconds: it imports torch

    mask = masks[position]
    assert mask is not None, "an absent mask is sound"
    try:
        rle.run_lengths((mask.height, mask.width), mask.counts)
    except ValueError as error:
        return CorruptMaskError(position, str(error))
    raise AssertionError(f"{mask} is sound")


@kernel
def _count_runs(
    text: UInt8[np.ndarray, "L"],
    begins: Int64[np.ndarray, "n"],
    stops: Int64[np.ndarray, "n"],
    starts: Int64[np.ndarray, "n+1"],
    sound: Bool[np.ndarray, "n"],
) -> None:
    """Fills `starts`, and checks for `sound` that texts are not empty and have only characters from '0' to 'o'."""
    for mask in range(len(stops)):
        own = text[begins[mask] : stops[mask]]
        runs = outside = 0
        for place in range(len(own)):
            runs += own[place] < _MORE
            outside |= own[place] - 48
        starts[mask + 1] = starts[mask] + runs
        sound[mask] = len(own) > 0 and outside & -64 == 0


@kernel
def _read_runs(
    text: UInt8[np.ndarray, "L"],
    begins: Int64[np.ndarray, "n"],
    stops: Int64[np.ndarray, "n"],
    pixels: Int64[np.ndarray, "n"],
    starts: Int64[np.ndarray, "n+1"],
    digits: Int64[np.ndarray, "256"],
    doubled: int,
    numbers: Int64[np.ndarray, "B"],
    ends: Integer[np.ndarray, "R"],
    areas: Int64[np.ndarray, "n"],
    sound: Bool[np.ndarray, "n"],
) -> None:
    """Fills `ends`, `areas` and `sound`; `numbers` is a buffer for one mask, `doubled` a character that comes twice.

    Numbers are written in digits of 5 bits, the lowest first. From a mask's fourth on, a run is stored as its
    difference to the one two before. Two loops take less time than one: the first one waits for the characters.
    """
    one = np.uint64(1)  # unsigned positions spare a check for negative ones
    for mask in range(len(stops)):
        own = text[begins[mask] : stops[mask]]
        place, read, size = np.uint64(0), np.uint64(0), np.uint64(len(own))
        good = sound[mask]
        single = False
        while place < size:
            character = own[place]
            number = digits[character]
            place += one
            if character >= _MORE:
                bits = 5
                if character == doubled:
                    single |= own[place] != doubled  # at least a closing quote comes next
                    place += one
                while character >= _MORE and place < size and bits < _BITS:
                    character = own[place]
                    number += digits[character] << bits
                    place += one
                    bits += 5
                    if character == doubled:
                        single |= own[place] != doubled
                        place += one
                if character >= _MORE:
                    good = False
                    break
            numbers[read] = number
            read += one

        own_ends = ends[starts[mask] : starts[mask + 1]]
        total = area = before = last = 0  # lengths of the run before the last, and of the last
        negative = 0
        for run in range(np.int64(read)):
            length = numbers[run] + before
            total += length
            own_ends[run] = total
            area += length & -(run & 1)
            negative |= length | (pixels[mask] - total)
            before, last = last, length if run > 0 else 0
        areas[mask] = area
        sound[mask] = pixels[mask] == 0 or (good and not single and negative >= 0 and total == pixels[mask])


@kernel
def _boxes(
    sizes: Int64[np.ndarray, "n 2"],
    starts: Int64[np.ndarray, "n+1"],
    ends: Integer[np.ndarray, "R"],
    sides: Int64[np.ndarray, "n 4"],
) -> None:
    """Fills `sides`; foreground runs that are all empty give pycocotools' unsigned 32-bit values."""
    for mask in range(len(sizes)):
        height, width = sizes[mask]
        left, top, right, bottom = width, height, 0, 0
        x = begin = 0  # a column, and the place of its first pixel
        for run in range(starts[mask] + 1, starts[mask + 1], 2):
            first, final = int(ends[run - 1]), int(ends[run]) - 1
            if first > final:
                continue
            while first >= begin + height:
                x, begin = x + 1, begin + height
            left = min(left, x)
            if final >= begin + height:  # over several columns: it touches the bottom and the top row
                top, bottom = 0, height - 1
                while final >= begin + height:
                    x, begin = x + 1, begin + height
            else:
                top, bottom = min(top, first - begin), max(bottom, final - begin)
            right = max(right, x)
        if starts[mask + 1] - starts[mask] > 1:
            sides[mask, 0], sides[mask, 1] = left, top
            sides[mask, 2], sides[mask, 3] = (right - left + 1) & 0xFFFFFFFF, (bottom - top + 1) & 0xFFFFFFFF
