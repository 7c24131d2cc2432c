"""Deformable attention over several feature maps (Zhu et al. 2021), as one weighted sum of rows."""

import functools
import logging
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openvis_model.by_size import Size
from openvis_model.folded.layers import FeedForward, LayerNorm, Linear, Weights


@dataclass(frozen=True)
class Grid:
    """The places of all feature maps, one map after the other.

    Attributes:
        sizes: width and height of each map, as floats.
        starts: number of the first place of each map.
        places: where a place lies on every map, x and y in pixels of that map, 0 at the centre of its first pixel.
    """

    sizes: Float[Tensor, "L 2"]
    starts: Float[Tensor, " L"]
    places: Float[Tensor, "S L 2"]

    @classmethod
    def of(cls, sizes: tuple[Size, ...], like: Tensor) -> "Grid":
        """Builds the grid of maps of given (height, width), on the device and with the dtype of a tensor."""

        def row(values: object) -> Tensor:
            return torch.tensor(values, device=like.device, dtype=like.dtype)

        extents = row([(width, height) for height, width in sizes])
        starts = row([sum(height * width for height, width in sizes[:level]) for level in range(len(sizes))])
        fractions = []
        for height, width in sizes:
            y, x = ((torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) / n for n in (height, width))
            fractions.append(torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1).flatten(0, 1))
        return cls(extents, starts, torch.cat(fractions)[:, None] * extents - 0.5)


class DeformableLayer(nn.Module):
    """A transformer layer in which every place looks at a few places of each map, which it chooses itself."""

    def __init__(self, weights: Weights, *, heads: int, levels: int) -> None:
        super().__init__()
        self.heads, self.levels = heads, levels
        attention = weights.under("self_attn")
        self.choose = Linear.of(attention.under("sampling_offsets"), attention.under("attention_weights"))
        self.value = Linear.of(attention.under("value_proj"))
        self.output = Linear.of(attention.under("output_proj"))
        self.norm = LayerNorm(weights.under("self_attn_layer_norm"))
        self.feed_forward = FeedForward(weights)
        self.points = len(attention["attention_weights.bias"]) // (heads * levels)

    def forward(self, x: Float[Tensor, "B S C"], positions: Float[Tensor, "S C"], grid: Grid) -> Float[Tensor, "B S C"]:
        """Attends, then transforms each place."""
        samples = (self.heads, self.levels, self.points)
        chosen = self.choose(x + positions).to(grid.places.dtype)
        offsets, scores = chosen.split([2 * chosen.shape[-1] // 3, chosen.shape[-1] // 3], -1)
        where = offsets.unflatten(-1, (*samples, 2)) + grid.places[:, None, :, None]
        attention = scores.unflatten(-1, (self.heads, -1)).softmax(-1).unflatten(-1, samples[1:])
        value = self.value(x).unflatten(-1, (self.heads, -1))
        x = self.norm(x + self.output(sample(value, where, attention, grid)))
        out: Tensor = self.feed_forward(x)
        return out


def sample(
    value: Float[Tensor, "B S H d"],
    where: Float[Tensor, "B S H L P 2"],
    attention: Float[Tensor, "B S H L P"],
    grid: Grid,
) -> Float[Tensor, "B S H*d"]:
    """Sums the values at chosen places, weighted by attention; on a GPU by a Triton kernel, where it works.

    Values between pixels are interpolated bilinearly, values outside of a map are zero.

    Args:
        value: the values of all places, one map after the other.
        where: x and y of the samples in pixels of their map, 0 at the centre of the first pixel.
        attention: weights of the samples.
        grid: sizes and starts of the maps.
    """
    if value.is_cuda and value.dtype != torch.float64:
        sampled: Tensor = sample_on_gpu(value, where, attention, grid.sizes, grid.starts)
        return sampled
    return sample_rows(value, where, attention, grid.sizes, grid.starts)


@torch.library.custom_op("openvis::sample", mutates_args=())
def sample_on_gpu(value: Tensor, where: Tensor, attention: Tensor, sizes: Tensor, starts: Tensor) -> Tensor:
    """Does what `sample` does, as one operation that `torch.compile` does not look into."""
    if kernel_works(value.device, value.shape[-1]):
        from openvis_model.folded.deformable_kernel import sample_by_kernel

        return sample_by_kernel(value, where, attention, sizes, starts)
    return sample_rows(value, where, attention, sizes, starts)


@sample_on_gpu.register_fake
def _(value: Tensor, where: Tensor, attention: Tensor, sizes: Tensor, starts: Tensor) -> Tensor:
    return value.new_empty(value.shape).flatten(2)


@functools.cache
def kernel_works(device: torch.device, width: int) -> bool:
    """Returns whether the kernel can be compiled for a device, and gives the numbers of `sample_rows` there.

    Args:
        device: where it is to run.
        width: d, the channels of a head.
    """
    random = functools.partial(torch.rand, generator=torch.Generator().manual_seed(0))
    grid = Grid.of(((2, 3), (4, 6)), torch.zeros(1))
    places = len(grid.places)
    where = grid.places[:, None, :, None] + 4 * random(2, places, 2, 2, 2, 2) - 2
    given = (random(2, places, 2, width), where, random(2, places, 2, 2, 2), grid.sizes, grid.starts)
    try:
        from openvis_model.folded.deformable_kernel import sample_by_kernel

        by_kernel = sample_by_kernel(*(each.to(device) for each in given)).cpu()
    except Exception as error:  # of a package that is missing, a compiler, or a driver
        logging.getLogger(__name__).warning("no Triton kernel for deformable attention on %s: %r", device, error)
        return False
    works = torch.allclose(by_kernel, sample_rows(*given), rtol=0, atol=1e-5)
    if not works:
        logging.getLogger(__name__).warning("the Triton kernel for deformable attention is wrong on %s", device)
    return works


def sample_rows(
    value: Float[Tensor, "B S H d"],
    where: Float[Tensor, "B S H L P 2"],
    attention: Float[Tensor, "B S H L P"],
    sizes: Float[Tensor, "L 2"],
    starts: Float[Tensor, " L"],
) -> Float[Tensor, "B S H*d"]:
    """Does what `sample` does, anywhere; `sizes` and `starts` are those of the grid.

    A sample is the weighted sum of four rows of a table, and all samples of a head are one bag of such rows.
    """
    batch, places, heads, width = value.shape
    corner = where.floor()
    weights, indices = [], []
    for axis in (0, 1):
        first = corner[..., axis]
        fraction = where[..., axis] - first
        both = torch.stack([first, first + 1], -1)
        last = sizes[:, axis, None, None] - 1
        inside = (both >= 0) & (both <= last)
        weights.append(torch.stack([1 - fraction, fraction], -1) * inside)
        indices.append(both.clamp(min=0).minimum(last).nan_to_num(0).to(torch.int32))  # the weight stays NaN
    columns, rows = indices
    widths, starts = (each.to(torch.int32)[:, None, None] for each in (sizes[:, 0], starts))
    image = places * torch.arange(batch, device=value.device, dtype=torch.int32).view(-1, 1, 1, 1, 1, 1)
    head = torch.arange(heads, device=value.device, dtype=torch.int32).view(-1, 1, 1, 1)
    rows = (rows * widths + (starts + image)) * heads + head
    index = rows[..., :, None] + (columns * heads)[..., None, :]
    share = (weights[1] * attention[..., None])[..., :, None] * weights[0][..., None, :]
    bags = F.embedding_bag(
        index.flatten(3).flatten(0, 2),
        value.reshape(-1, width),
        per_sample_weights=share.flatten(3).flatten(0, 2).to(value.dtype),
        mode="sum",
    )
    return bags.view(batch, places, heads * width)
