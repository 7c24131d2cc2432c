"""Deformable attention's sampling as one Triton kernel, for GPUs.

The plain form writes an index and a weight for each of the four neighbours of each sample to memory, and reads them
again: 64 bytes for every 8 to 16 that name the sample. The kernel keeps them in registers.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

_BLOCK = 32  # places of a program


@triton.jit  # type: ignore[untyped-decorator]
def _sample(  # type: ignore[no-untyped-def] # Triton's types are those of its language
    value,
    where,
    attention,
    sizes,
    starts,
    out,
    places,
    heads: tl.constexpr,
    levels: tl.constexpr,
    points: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
):
    """Sums the samples of a block of places, for one head of one frame."""
    place = tl.program_id(0) * block + tl.arange(0, block)
    head, first = tl.program_id(1), tl.program_id(2).to(tl.int64) * places
    real = place < places
    row = (first + place) * heads + head
    channel = tl.arange(0, width)
    total = tl.zeros((block, width), tl.float32)
    for sample in range(levels * points):
        level = sample // points
        columns, lines = tl.load(sizes + 2 * level), tl.load(sizes + 2 * level + 1)
        start = tl.load(starts + level)
        at = row * (levels * points) + sample
        x = tl.load(where + 2 * at, mask=real, other=0.0)
        y = tl.load(where + 2 * at + 1, mask=real, other=0.0)
        share = tl.load(attention + at, mask=real, other=0.0)
        for corner in tl.static_range(4):
            column, line = tl.floor(x) + corner % 2, tl.floor(y) + corner // 2
            inside = real & (column >= 0) & (column < columns) & (line >= 0) & (line < lines)
            outside = share * (x - x) * (y - y)  # 0, or NaN where a place is no number
            weight = tl.where(inside, share * (1 - tl.abs(x - column)) * (1 - tl.abs(y - line)), outside)
            # outside, a place may be too large for an integer
            source = tl.where(inside, start + line * columns + column, 0.0).to(tl.int64)
            source = ((first + source) * heads + head) * width
            rows = tl.load(value + source[:, None] + channel[None, :], mask=inside[:, None], other=0.0)
            total += weight[:, None] * rows
    tl.store(out + (row * width)[:, None] + channel[None, :], total.to(out.dtype.element_ty), mask=real[:, None])


def sample_by_kernel(
    value: Float[Tensor, "B S H d"],
    where: Float[Tensor, "B S H L P 2"],
    attention: Float[Tensor, "B S H L P"],
    sizes: Float[Tensor, "L 2"],
    starts: Float[Tensor, " L"],
) -> Float[Tensor, "B S H*d"]:
    """Does what `deformable_attention.sample` does, with sums in float32.

    Args:
        value: the values of all places, one map after the other.
        where: x and y of the samples in pixels of their map.
        attention: weights of the samples.
        sizes: width and height of each map.
        starts: number of the first place of each map.

    Raises:
        ValueError: d is not a power of two.
    """
    batch, places, heads, width = value.shape
    if width & (width - 1):
        raise ValueError(f"heads have {width} channels, which is not a power of two")
    out = torch.empty_like(value, memory_format=torch.contiguous_format)
    with torch.cuda.device_of(value):
        _sample[(triton.cdiv(places, _BLOCK), heads, batch)](
            value.contiguous(),
            where.float().contiguous(),
            attention.float().contiguous(),
            sizes.float(),
            starts.float(),
            out,
            places,
            heads=heads,
            levels=where.shape[3],
            points=where.shape[4],
            width=width,
            block=_BLOCK,
        )
    return out.flatten(2)
