"""Pairs of tracks with similar embeddings: exact within blocks of tracks around random ones, in bounded memory."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float32, Int32

BLOCK = 2048
"""Tracks per block if all blocks were equal; up to this many are all compared with each other."""

_BLOCKS_OF_EACH = 2  # so that two similar tracks on either side of a border meet
_ROWS, _COLUMNS = 1024, 8192  # tracks that are compared at a time
_SEED = 0

ROUNDING = 1e-6
"""By how much the cosine of equal vectors may be below 1."""

Pairs = tuple[Int32[np.ndarray, "P"], Int32[np.ndarray, "P"], Float32[np.ndarray, "P"]]
"""Places of two tracks, the first one smaller, and their cosine; sorted by place."""


Apart = Callable[[Int32[np.ndarray, "P"], Int32[np.ndarray, "P"]], Bool[np.ndarray, "P"]]
"""Says of the vectors at some places, and those at others, which may be a pair."""


def of_other_groups(groups: Int32[np.ndarray, "N"]) -> Apart:
    """Returns a rule by which vectors of different groups may be a pair."""
    return lambda some, others: groups[some] != groups[others]


def similar_pairs(
    vectors: Float32[np.ndarray, "N D"], apart: Apart, threshold: float, top: int, block: int = BLOCK
) -> Pairs:
    """Finds pairs of vectors whose cosine reaches a threshold.

    A pair is compared if one of the two random vectors nearest to the one is also one of those nearest to the other.
    Work grows with N × `block`; memory with N, by some bytes and `top` pairs each.

    Args:
        vectors: unit norm; may be mapped from a file.
        apart: which vectors may be a pair; none is one with itself.
        threshold: least cosine.
        top: pairs of a vector that are kept, the most similar ones.
        block: vectors per block; up to this many are all compared with each other.
    """
    found = [_of_block(vectors, apart, rows, threshold - ROUNDING, top) for rows in _blocks(vectors, block)]
    first, second, cosines = (np.concatenate(each) for each in zip(_NONE, *found, strict=True))
    low, high = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort((-cosines, high, low))
    low, high, cosines = low[order], high[order], cosines[order].clip(max=1)
    new = np.ones(len(low), bool)
    new[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    return low[new], high[new], cosines[new]


_NONE: Pairs = np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32)


def _blocks(vectors: Float32[np.ndarray, "N D"], block: int) -> Iterator[Int32[np.ndarray, "B"]]:
    """Yields the places of the vectors of each block, ascending; a vector is in one or two of them."""
    if len(vectors) <= block:
        yield np.arange(len(vectors), dtype=np.int32)
        return
    chosen = np.random.default_rng(_SEED).choice(len(vectors), -(-len(vectors) // block), replace=False)
    pivots = vectors[np.sort(chosen)]
    near = np.empty((len(vectors), _BLOCKS_OF_EACH), np.int32)
    for start in range(0, len(vectors), _COLUMNS):
        cosines = vectors[start : start + _COLUMNS] @ pivots.T
        near[start : start + _COLUMNS] = np.argpartition(-cosines, _BLOCKS_OF_EACH - 1)[:, :_BLOCKS_OF_EACH]
    order = np.argsort(near.ravel(), kind="stable").astype(np.int32)
    ends = np.cumsum(np.bincount(near.ravel(), minlength=len(pivots))).tolist()
    for start, end in zip([0, *ends], ends, strict=False):
        yield order[start:end] // _BLOCKS_OF_EACH


def _of_block(
    vectors: Float32[np.ndarray, "N D"],
    apart: Apart,
    rows: Int32[np.ndarray, "B"],
    threshold: float,
    top: int,
) -> Pairs:
    """Returns the most similar others of each vector of a block: every pair may be there twice."""
    found = [_NONE]
    for start in range(0, len(rows), _ROWS):
        those, best = rows[start : start + _ROWS], _NONE
        queries = np.asarray(vectors[those])
        for column in range(0, len(rows), _COLUMNS):
            others = rows[column : column + _COLUMNS]
            cosines = queries @ np.asarray(vectors[others]).T
            at, other = np.divmod(np.flatnonzero(cosines >= threshold), len(others))
            pairs = apart(those[at], others[other]) & (those[at] != others[other])
            at, other = at[pairs].astype(np.int32), other[pairs]
            best = _best(best, (at, others[other], cosines[at, other]), top)
        found.append((those[best[0]], best[1], best[2]))
    first, second, cosines = (np.concatenate(each) for each in zip(*found, strict=True))
    return first, second, cosines


def _best(some: Pairs, more: Pairs, top: int) -> Pairs:
    """Returns the pairs of each first one with the largest cosines, of two lists together."""
    first, second, cosines = (np.concatenate(each) for each in zip(some, more, strict=True))
    order = np.lexsort((second, -cosines, first))
    first = first[order]
    rank = np.arange(len(first)) - first.searchsorted(first)
    kept = order[rank < top]
    return first[rank < top], second[kept], cosines[kept]
