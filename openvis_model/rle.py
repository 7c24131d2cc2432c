"""COCO run-length encoding directly from mask logits, without a dense mask at frame size.

Bilinear upsampling is linear along an output column between two neighbouring rows of logits ("knots"). A column's runs
therefore follow from the few places where neighbouring knots differ in sign; no other pixel is computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

# Visits of cells at a time: about 30 MB. More do not fit into a CPU's cache; fewer cost a GPU more launches and waits.
_MAX_VISITS = 1 << 19


class CocoRle(TypedDict):
    """One mask as input for `pycocotools`: `size` is [height, width] in pixels, `counts` the compressed runs."""

    size: list[int]
    counts: bytes


@dataclass(frozen=True)
class RleMasks:
    """N masks of one frame size; equal if size and counts are equal, which determine areas and boxes.

    Attributes:
        size: height and width of the frame, pixels.
        counts: COCO compressed counts of each mask, byte for byte those of `pycocotools.mask.encode`.
        areas: foreground pixels of each mask.
        boxes: x, y, width, height in pixels, as `pycocotools.mask.toBbox`; zeros for an empty mask.
    """

    size: tuple[int, int]
    counts: tuple[bytes, ...]
    areas: Int64[np.ndarray, "N"] = field(compare=False)
    boxes: Int64[np.ndarray, "N 4"] = field(compare=False)

    def __len__(self) -> int:
        return len(self.counts)

    def split(self, counts: Sequence[int]) -> list["RleMasks"]:
        """Returns the masks in groups of these sizes, for example per frame if several were encoded together."""
        stops = list(accumulate(counts))
        return [
            RleMasks(self.size, self.counts[i:j], self.areas[i:j], self.boxes[i:j])
            for i, j in zip([0, *stops], stops, strict=False)
        ]

    def take(self, index: Int64[np.ndarray, "n"]) -> "RleMasks":
        """Returns the masks at these positions, in this order."""
        return RleMasks(self.size, tuple(self.counts[i] for i in index), self.areas[index], self.boxes[index])

    def to_dense(self) -> Bool[np.ndarray, "N H W"]:
        """Returns the N masks as arrays of pixels."""
        dense = np.zeros((len(self), *self.size), dtype=np.bool_)
        for mask, counts in zip(dense, self.counts, strict=True):
            mask[:] = decode(self.size, counts)
        return dense

    def to_coco(self) -> list[CocoRle]:
        """Returns the N masks in the form that `pycocotools` takes."""
        return [{"size": list(self.size), "counts": counts} for counts in self.counts]


def encode_logits(mask_logits: Float[Tensor, "N h w"], size: tuple[int, int]) -> RleMasks:
    """Encodes the masks `interpolate(mask_logits, size, mode="bilinear", align_corners=False) > 0`.

    Masks of several frames can be encoded in one call, as [frames * N, h, w]. Values are interpolated in float64,
    whatever the type of the logits; infinite ones count as the largest finite float32.

    Args:
        mask_logits: of any float type, on any device, in any ratio to `size`.
        size: height and width of the frame, pixels.

    Raises:
        ValueError: for mask logits that are not float [N, h, w], have no pixels or contain NaN, or a size that is not
            positive.
    """
    _check("mask_logits", mask_logits, size, "floating point", mask_logits.is_floating_point())
    logits = mask_logits.detach()
    # The minimum is NaN if any value is; unlike isnan().any(), it needs no temporary tensor.
    if len(logits) and logits.amin().isnan():
        raise ValueError("mask_logits has NaN")
    cells = _Cells.of(logits, size)
    chunks = [
        _pack(_sign_changes(logits, cells.of_masks(part), size), part.stop - part.start, size) for part in cells.parts()
    ]
    areas, boxes = (np.concatenate(arrays) for arrays in zip(*((c.areas, c.boxes) for c in chunks), strict=True))
    return RleMasks(size, tuple(counts for chunk in chunks for counts in chunk.counts), areas, boxes)


def encode(masks: Bool[Tensor, "N H W"]) -> RleMasks:
    """Encodes dense masks, on their device.

    Raises:
        ValueError: for masks that are not bool [N, H, W] or have no pixels.
    """
    _check("masks", masks, (1, 1), "bool", masks.dtype == torch.bool)
    pixels = F.pad(masks.transpose(1, 2).flatten(1), (1, 1))
    keys = (pixels[:, 1:] != pixels[:, :-1]).flatten().nonzero().squeeze(1)
    return _pack(keys, len(masks), (masks.shape[1], masks.shape[2]))


def run_lengths(size: tuple[int, int], counts: bytes) -> Int64[np.ndarray, "R"]:
    """Returns the lengths of a mask's runs in pixels: background, foreground, …; the area is the sum of `[1::2]`.

    Args:
        size: height and width of the frame, pixels.
        counts: COCO compressed counts.

    Raises:
        ValueError: for counts that are not COCO compressed counts of a frame of this size.
    """
    chars = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if chars.size == 0 or chars.min() < 0 or chars.max() > 63:
        raise ValueError(f"counts must be characters from '0' to 'o', at least one, got {counts[:40]!r}")
    last = np.flatnonzero(chars < 32)
    if last.size == 0 or last[-1] != chars.size - 1:
        raise ValueError(f"counts are truncated, they end within a number: {counts[-40:]!r}")
    first = np.append(0, last[:-1] + 1)
    width = last - first + 1
    if width.max() > 7:  # 34 bits and a sign; much longer numbers would overflow
        raise ValueError(f"counts have a number of {width.max()} characters, more than the 7 that any frame needs")
    place = np.arange(chars.size) - np.repeat(first, width)
    runs = np.add.reduceat((chars & 31) << 5 * place, first) - np.where(chars[last] & 16, 1 << 5 * width, 0)
    for parity in (1, 2):  # from the fourth on, a run is stored as its difference to the run two before
        runs[parity::2] = runs[parity::2].cumsum()
    if runs.min() < 0 or runs.sum() != size[0] * size[1]:
        raise ValueError(f"counts must be runs with the sum {size[0]} * {size[1]}, got {runs.sum()} from {runs[:8]}...")
    return runs


def decode(size: tuple[int, int], counts: bytes) -> Bool[np.ndarray, "H W"]:
    """Decodes COCO compressed counts to the dense mask of a frame of this height and width, pixels.

    Raises:
        ValueError: for counts that are not COCO compressed counts of a frame of this size.
    """
    runs = run_lengths(size, counts)
    return np.repeat(np.arange(runs.size) % 2 == 1, runs).reshape(size[1], size[0]).T


def _check(name: str, masks: Tensor, size: tuple[int, int], kind: str, is_kind: bool) -> None:
    if masks.ndim != 3 or 0 in masks.shape[1:] or not is_kind:
        raise ValueError(f"{name} must be {kind} [N, height, width] with pixels, got {masks.dtype} {list(masks.shape)}")
    if min(size) < 1:
        raise ValueError(f"size must be a positive height and width, got {size}")


@dataclass(frozen=True)
class _Cells:
    """The cells with both signs, and which of them each output column visits: those of its source column, in order.

    Attributes:
        line: mask * w + column of each cell, ascending.
        interval: interval of each cell.
        first: number of the first cell that an output column visits.
        visits: number of cells that it visits.
        share: how far each output column is from its source column to the next.
        counts: visits of each mask.
        starts: number of the first cell of each mask, and of all cells.
    """

    line: Int64[Tensor, "A"]
    interval: Int64[Tensor, "A"]
    first: Int64[Tensor, "N W"]
    visits: Int64[Tensor, "N W"]
    share: Float[Tensor, " W"]
    counts: list[int]
    starts: list[int]

    @classmethod
    def of(cls, logits: Float[Tensor, "N h w"], size: tuple[int, int]) -> "_Cells":
        """Finds the cells of mask logits, which are upsampled to `size`."""
        (n, _, w), device = logits.shape, logits.device
        line, interval = _mixed_cells(logits)
        x = ((torch.arange(size[1], device=device, dtype=torch.float64) + 0.5) * w / size[1] - 0.5).clamp(0, w - 1)
        starts = torch.searchsorted(line, torch.arange(n * w + 1, device=device))
        visits = starts.diff().view(n, w)[:, x.long()]
        first = starts[:-1].view(n, w)[:, x.long()]
        counts, of_masks = torch.stack([F.pad(visits.sum(1), (0, 1)), starts[::w]]).tolist()  # one wait for the device
        return cls(line, interval, first, visits, x.frac(), counts[:-1], of_masks)

    def parts(self) -> list[slice]:
        """Returns the masks in groups that visit at most `_MAX_VISITS` cells, or have one mask; at least one."""
        parts, total = [slice(0, 0)], 0
        for mask, count in enumerate(self.counts):
            total += count
            if total > _MAX_VISITS and mask > parts[-1].start:
                parts.append(slice(mask, mask))
                total = count
            parts[-1] = slice(parts[-1].start, mask + 1)
        return parts

    def of_masks(self, part: slice) -> "_Cells":
        """Returns the cells of some masks."""
        first, last = self.starts[part.start], self.starts[part.stop]
        return _Cells(
            self.line[first:last],
            self.interval[first:last],
            self.first[part] - first,
            self.visits[part],
            self.share,
            self.counts[part],
            [first, last],
        )


def _sign_changes(logits: Float[Tensor, "N h w"], cells: _Cells, size: tuple[int, int]) -> Int64[Tensor, "M"]:
    """Returns where the sign of some masks changes, as ascending keys: mask * (H * W + 1) + column-major pixel."""
    h, (H, W), device = logits.shape[1], size, logits.device
    visits, n = cells.visits.flatten(), len(cells.counts)
    # In this order the keys come out ascending.
    column = torch.arange(n * W, device=device).repeat_interleave(visits, output_size=sum(cells.counts))
    cell = torch.arange(len(column), device=device)
    cell += (cells.first.flatten() - visits.cumsum(0) + visits).take(column)
    upper, lower = _knots(logits, cells.line, cells.interval, cell, cells.share.repeat(n).take(column))

    change = ((upper > 0) != (lower > 0)).nonzero().squeeze(1)
    interval, column = cells.interval.take(cell.take(change)), column.take(change)
    row = _rows(upper.take(change), lower.take(change), interval, h, H)
    # If the mask continues from one column to the next, or several knots lie between two rows, changes coincide and
    # cancel in pairs. A mask has one key more than pixels, so that its end does not cancel the start of the next mask.
    keys: Tensor
    keys, times = torch.unique_consecutive(column * H + row + column // W, return_counts=True)
    return keys.take((times % 2).nonzero().squeeze(1))


def _mixed_cells(logits: Float[Tensor, "N h w"]) -> tuple[Int64[Tensor, "A"], Int64[Tensor, "A"]]:
    """Returns line (mask * w + column) and interval of all cells with both signs; a change can lie in no other.

    A cell spans column to column + 1, and knot interval - 1 to interval. Background above and below the frame makes
    every column start and end as background, so that columns are independent of each other.
    """
    n, h, w = logits.shape
    positive = torch.zeros(n, w, h + 2, dtype=torch.bool, device=logits.device)
    torch.gt(logits.transpose(1, 2), 0, out=positive[..., 1:-1])
    flips = positive[..., 1:] != positive[..., :-1]
    mixed = flips.clone()
    mixed[:, :-1] |= flips[:, 1:] | (positive[:, 1:, 1:] != positive[:, :-1, 1:])
    cells = mixed.flatten().nonzero().squeeze(1)
    return cells // (h + 1), cells % (h + 1)


def _knots(
    logits: Float[Tensor, "N h w"],
    line: Int64[Tensor, "A"],
    interval: Int64[Tensor, "A"],
    cell: Int64[Tensor, "V"],
    share: Float[Tensor, "V"],
) -> tuple[Float[Tensor, "V"], Float[Tensor, "V"]]:
    """Returns the values of visited cells at their upper and lower knot, `share` of the way to the right column."""
    _, h, w = logits.shape
    limit = torch.finfo(torch.float32).max
    values = []
    for knot in (interval - 1, interval):
        left = (line // w * h + knot.clamp(0, h - 1)) * w + line % w
        right = left + (line % w < w - 1)
        outside = (knot < 0) | (knot == h)
        a, b = (logits.take(i).double().clamp(-limit, limit).masked_fill(outside, -1) for i in (left, right))
        values.append(torch.lerp(a.take(cell), b.take(cell), share))
    return values[0], values[1]


def _rows(
    upper: Float[Tensor, "M"], lower: Float[Tensor, "M"], interval: Int64[Tensor, "M"], knots: int, rows: int
) -> Int64[Tensor, "M"]:
    """Returns the first row after each change. Row y lies at knot coordinate (y + 0.5) * knots / rows - 0.5."""
    y = (interval - 0.5 + upper / (upper - lower)) * rows / knots - 0.5
    # A value of exactly 0 is background: the row is the first after the mask, or the last before it.
    row = torch.where(upper > 0, y.ceil(), y.floor() + 1).long()
    # Rounding must not move a change past its knots, which lie exactly at y = numerator / (2 * knots).
    numerator = (2 * torch.arange(knots, device=interval.device) + 1) * rows - knots
    lowest = F.pad(numerator // (2 * knots) + 1, (1, 0))
    highest = F.pad(-(-numerator // (2 * knots)), (0, 1), value=rows)
    lowest[-1], highest[0] = rows, 0  # the background outside begins and ends with the frame
    return row.clamp(lowest.take(interval), highest.take(interval))


def _pack(keys: Int64[Tensor, "M"], n: int, size: tuple[int, int]) -> RleMasks:
    """Turns ascending keys from `_sign_changes` into counts, areas and boxes of n masks."""
    (H, W), device = size, keys.device
    masks = torch.arange(n, device=device)
    ends = torch.unique(torch.cat([keys, (masks + 1) * (H * W + 1) - 1]))  # every mask's last run ends with the frame
    owner, stop = ends // (H * W + 1), ends % (H * W + 1)
    order = torch.arange(len(ends), device=device) - torch.searchsorted(owner, masks).take(owner)
    start = torch.where(order > 0, stop.roll(1), 0)
    chars, used = _compress(stop - start, order, H * W)
    text_ends = torch.zeros_like(masks).index_add(0, owner, used).cumsum(0)

    on = (order % 2).nonzero().squeeze(1)
    owner, first, final = owner.take(on), start.take(on), stop.take(on) - 1
    areas = torch.zeros_like(masks).index_add(0, owner, final - first + 1)
    left, right = first // H, final // H
    same = left == right  # a run over several columns touches the top and bottom rows
    top, bottom = torch.where(same, first % H, 0), torch.where(same, final % H, H - 1)
    sides = torch.stack([left, top, -right - 1, -bottom - 1], 1)
    box = torch.zeros(n, 4, dtype=torch.int64, device=device)
    box = box.scatter_reduce(0, owner[:, None].expand(-1, 4), sides, "amin", include_self=False)
    boxes = torch.cat([box[:, :2], -box[:, 2:] - box[:, :2]], 1)

    table = torch.cat([text_ends[:, None], areas[:, None], boxes], 1).cpu().numpy()
    text = chars.cpu().numpy().tobytes()
    counts = tuple(text[a:b] for a, b in pairwise([0, *table[:, 0].tolist()]))
    return RleMasks(size, counts, table[:, 1], table[:, 2:])


def _compress(lengths: Int64[Tensor, "R"], order: Int64[Tensor, "R"], pixels: int) -> tuple[Tensor, Tensor]:
    """Returns COCO's characters of all runs as one string, uint8 [L], and the number of characters of each run, [R].

    From the fourth run of a mask on, a run is stored as its difference to the run two before. A number is written from
    its lowest 5 bits up, until only the sign remains; bit 6 marks that more characters follow.
    """
    delta = lengths - torch.where(order > 2, lengths.roll(2), 0)
    groups = pixels.bit_length() // 5 + 1  # with one bit more than the longest run, for the sign
    rest = delta[:, None] >> 5 * torch.arange(groups, device=delta.device)
    more = (rest < -16) | (rest > 15)
    chars = (rest.to(torch.uint8) & 31) + 32 * more.to(torch.uint8) + 48
    written = F.pad(more[:, :-1], (1, 0), value=True)
    return chars.take(written.flatten().nonzero().squeeze(1)), written.sum(1)
