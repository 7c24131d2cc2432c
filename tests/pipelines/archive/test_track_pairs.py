import numpy as np
import pytest
from jaxtyping import Float32

from pipelines.archive import track_pairs
from pipelines.archive.track_pairs import of_other_groups, similar_pairs


def unit(count: int, width: int = 16, seed: int = 0, copies: int = 0) -> Float32[np.ndarray, "N D"]:
    """Random vectors, of which the last ones are nearly copies of the first."""
    dice = np.random.default_rng(seed)
    vectors = dice.normal(size=(count, width))
    vectors[count - copies :] = vectors[:copies] + 0.03 * dice.normal(size=(copies, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def brute_force(vectors: np.ndarray, groups: np.ndarray, threshold: float, top: int) -> set[tuple[int, int]]:
    cosines = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    cosines[groups[:, None] == groups] = -1
    pairs = set()
    for one in range(len(vectors)):
        best = sorted(np.flatnonzero(cosines[one] >= threshold).tolist(), key=lambda other: -cosines[one, other])[:top]
        pairs |= {(min(one, other), max(one, other)) for other in best}
    return pairs


@pytest.mark.parametrize(("rows", "columns"), [(1024, 8192), (7, 11)])
@pytest.mark.parametrize("top", [1, 3, 1000])
def test_within_a_block_all_pairs_are_found(top: int, rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track_pairs, "_ROWS", rows)
    monkeypatch.setattr(track_pairs, "_COLUMNS", columns)
    vectors, groups = unit(300), (np.arange(300) // 4).astype(np.int32)
    first, second, cosines = similar_pairs(vectors, of_other_groups(groups), 0.5, top)
    found = set(zip(first.tolist(), second.tolist(), strict=True))
    assert len(found) == len(first) > 100
    assert found == brute_force(vectors, groups, 0.5, top)
    np.testing.assert_allclose(cosines, (vectors[first] * vectors[second]).sum(1), atol=1e-6)


def test_blocks_find_copies() -> None:
    """Of vectors without any structure, for which blocks are worst."""
    vectors, groups = unit(20_000, width=64, copies=2000), np.arange(20_000, dtype=np.int32)
    whole = brute_force_copies(vectors)
    first, second, _ = similar_pairs(vectors, of_other_groups(groups), 0.95, 5, block=500)
    found = set(zip(first.tolist(), second.tolist(), strict=True))
    assert found <= whole
    assert len(found) >= 0.98 * len(whole) >= 1900


def brute_force_copies(vectors: np.ndarray) -> set[tuple[int, int]]:
    pairs = set()
    for start in range(0, len(vectors), 1000):
        one, other = np.nonzero(vectors[start : start + 1000] @ vectors.T >= 0.95)
        pairs |= {(a, b) for a, b in zip((one + start).tolist(), other.tolist(), strict=True) if a < b}
    return pairs


def test_nothing_is_similar_to_nothing() -> None:
    for count in (0, 1):
        assert not len(similar_pairs(unit(count), of_other_groups(np.zeros(count, np.int32)), 0.5, 5)[0])


def test_copies_are_pairs_at_a_threshold_of_one() -> None:
    """The cosine of a float32 vector with itself is often a little below 1, or above."""
    once = unit(50, width=64)
    first, second, cosines = similar_pairs(np.repeat(once, 2, axis=0), lambda some, others: some >= 0, 1.0, 5)
    assert (first.tolist(), second.tolist()) == ([*range(0, 100, 2)], [*range(1, 100, 2)])
    assert cosines.max() <= 1
