"""Masks of a file as rows of a table: they stay the characters of the file until they are compared."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, overload

import numpy as np
from jaxtyping import Int64, UInt8

from pipelines.datasets import run_lengths
from pipelines.datasets.annotations import Mask
from pipelines.datasets.documents import Lifted
from pipelines.datasets.run_lengths import CorruptMaskError, RunLengths

_M = TypeVar("_M", Mask, Mask | None)

ABSENT = -1
"""Row of a mask that is absent."""

_BATCH = 1 << 10  # masks per check, so that their runs stay in the cache


class MaskTable:
    """n masks of a file.

    Args:
        lifted: their run lengths.

    Attributes:
        sizes: height and width of the frames, pixels; zeros until the file's reader has seen them. The last row, which
            is beyond those of the file, is an absent mask.
    """

    sizes: Int64[np.ndarray, "n+1 2"]

    def __init__(self, lifted: Lifted) -> None:
        self.lifted = lifted
        self.sizes = np.zeros((len(lifted.begins) + 1, 2), np.int64)
        self._begins, self._stops = np.append(lifted.begins, 0), np.append(lifted.stops, 0)
        self._sound = np.zeros(len(self.sizes), bool)  # known to be

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Copies what is written to later: arrays from Ray's object store are read-only."""
        self.__dict__ |= state
        self._sound = self._sound.copy()

    def __len__(self) -> int:
        return len(self.lifted.begins)

    def read(self, rows: Int64[np.ndarray, "m"]) -> RunLengths:
        """Reads some of the masks.

        Raises:
            CorruptMaskError: for the first that is not run lengths of its frame.
        """
        text, begins, stops = self.lifted.data, self._begins[rows], self._stops[rows]
        runs, sound = run_lengths.decode(text, begins, stops, self.sizes[rows], doubled=True)
        if not sound.all():
            raise CorruptMaskError(int(np.argmin(sound)), "it is not run lengths of its frame")
        self._sound[rows] = True
        return runs

    def check(self, rows: Int64[np.ndarray, "m"]) -> None:
        """Reads those of some masks that have not been read yet.

        Raises:
            CorruptMaskError: as `read`.
        """
        wanted = np.zeros(len(self.sizes), bool)
        wanted[rows] = True
        left = np.flatnonzero(wanted & ~self._sound)
        for start in range(0, len(left), _BATCH):
            self.read(left[start : start + _BATCH])

    def mask(self, row: int) -> Mask | None:
        """Returns a mask."""
        height, width = self.sizes[row].tolist()
        if height == 0:
            return None
        counts = self.lifted.data[self._begins[row] : self._stops[row]].tobytes()
        return Mask(height, width, counts.replace(b"\\\\", b"\\"))

    def text(self, row: int) -> str:
        """Returns the run lengths of a mask as JSON has them.

        Raises:
            ValueError: they are not sound JSON.
        """
        text: str = json.loads(b'"' + self.lifted.data[self._begins[row] : self._stops[row]].tobytes() + b'"')
        return text

    def spelling(self, rows: Int64[np.ndarray, "m"]) -> UInt8[np.ndarray, "L"]:
        """Returns the characters of the file from the first to the last of some masks, with all between them."""
        present = rows[rows != ABSENT]
        if len(present) == 0:
            return self.lifted.data[:0]
        return self.lifted.data[self._begins[present[0]] : self._stops[present[-1]]]


class MaskRows(Sequence[Any]):
    """Some masks of a table, in place of a tuple of them; None for those that are absent.

    Args:
        table: the table.
        rows: positions in it; `ABSENT` for None.
    """

    def __init__(self, table: MaskTable, rows: Int64[np.ndarray, "m"]) -> None:
        self.table, self.rows = table, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> "MaskRows": ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return MaskRows(self.table, self.rows[index])
        return self.table.mask(int(self.rows[index]))

    def __iter__(self) -> Iterator[Any]:
        return map(self.table.mask, self.rows.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MaskRows | tuple) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


def select(masks: Sequence[_M], rows: Int64[np.ndarray, "m"]) -> Sequence[_M]:
    """Returns the masks at some positions."""
    if isinstance(masks, MaskRows):
        return MaskRows(masks.table, masks.rows[rows])
    return tuple(masks[row] for row in rows.tolist())


def place(masks: Sequence[Mask], frames: Int64[np.ndarray, "m"], length: int) -> Sequence[Mask | None]:
    """Returns a track of that many frames with masks at some of them."""
    if isinstance(masks, MaskRows):
        rows = np.full(length, ABSENT)
        rows[frames] = masks.rows
        return MaskRows(masks.table, rows)
    placed: list[Mask | None] = [None] * length
    for frame, mask in zip(frames.tolist(), masks, strict=True):
        placed[frame] = mask
    return tuple(placed)


def check(tracks: Iterable[Sequence[Mask | None]]) -> None:
    """Reads those masks of tables that have not been read yet.

    Raises:
        CorruptMaskError: as `MaskTable.read`.
    """
    rows: dict[MaskTable, list[Int64[np.ndarray, " _"]]] = {}
    for masks in tracks:
        if isinstance(masks, MaskRows):
            rows.setdefault(masks.table, []).append(masks.rows)
    for table, own in rows.items():
        table.check(np.concatenate(own))


def read(tracks: Sequence[Sequence[Mask | None]]) -> RunLengths:
    """Reads the masks of tracks, one track after the other.

    Raises:
        ValueError: one of them is corrupt.
    """
    rows = [track for track in tracks if isinstance(track, MaskRows)]
    if rows and len(rows) == len(tracks) and len({id(track.table) for track in rows}) == 1:
        return rows[0].table.read(np.concatenate([track.rows for track in rows]))
    return run_lengths.read([mask for track in tracks for mask in track])
