from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from openvis_model import rle
from pipelines.datasets import run_lengths
from pipelines.datasets.annotations import Mask
from pipelines.datasets.run_lengths import CorruptMaskError, boxes, find_corrupt, intersections, read


def encode(dense: np.ndarray) -> Mask:  # type: ignore[type-arg]
    return Mask(*dense.shape, coco.encode(np.asfortranarray(dense.astype(np.uint8)))["counts"])


def random_masks(n: int) -> list[Mask]:
    """Empty, full, of a pixel or column, noise and blocks; numbers of one to four characters."""
    rng = np.random.default_rng(0)
    masks = []
    for _ in range(n):
        height, width = (int(side) for side in rng.choice([1, 2, 7, 40, 700], 2))
        dense = rng.random((height, width)) < rng.choice([0, 0.001, 0.5, 0.9, 1])
        y, x = rng.integers(0, height, 2), rng.integers(0, width, 2)
        dense[y.min() : y.max(), x.min() : x.max()] = rng.random() < 0.5
        masks.append(encode(dense))
    return masks


def special_masks() -> list[Mask]:
    """Masks of 5 x 3 that touch the first or last pixel, a row or a column, and runs of no pixels."""
    every = np.arange(15).reshape(3, 5).T
    kinds = [every < 0, every >= 0, every == 0, every == 14, every != 0, every != 14, every % 5 == 2, every // 5 == 1]
    runs = ["00407", "00?", "?0", "0?0", "2003:", "500000:", "0?0A", "00000?"]
    return [*map(encode, kinds), *(Mask(5, 3, text.encode()) for text in runs)]


def plain(mask: Mask) -> dict[str, Any]:
    return {"size": mask[:2], "counts": mask.counts}


def message(mask: Mask) -> str | None:
    try:
        rle.run_lengths(mask[:2], mask.counts)
    except ValueError as error:
        return str(error)
    return None


MASKS = random_masks(60) + special_masks()


def test_areas_and_runs() -> None:
    runs = read([*MASKS, None])
    assert runs.areas.tolist() == [*(int(coco.area(plain(mask))) for mask in MASKS), 0]
    assert runs.sizes.tolist() == [*(list(mask[:2]) for mask in MASKS), [0, 0]]
    for number, mask in enumerate(MASKS):
        ends = runs.ends[runs.starts[number] : runs.starts[number + 1]]
        assert ends.tolist() == rle.run_lengths(mask[:2], mask.counts).cumsum().tolist()
    assert runs.starts[-2] == runs.starts[-1] == len(runs.ends)
    assert len(read([])) == 0


def test_boxes() -> None:
    expected = [coco.toBbox(plain(mask)).tolist() for mask in MASKS]
    assert boxes(read([*MASKS, None])).tolist() == [*expected, [0, 0, 0, 0]]


@pytest.mark.parametrize("size", [(5, 3), (1, 9), (9, 1), (31, 17)])
def test_intersections(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(size))
    masks = [encode(rng.random(size) < share) for share in (0, 0.02, 0.3, 0.5, 0.9, 1) for _ in range(3)]
    masks += special_masks() if size == (5, 3) else []
    runs, n = read(masks), len(masks)
    pairs = np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1).reshape(-1, 2)
    pairs = rng.permutation(pairs)
    dense = [rle.decode(mask[:2], mask.counts) for mask in masks]
    assert intersections(runs, runs, *pairs.T).tolist() == [(dense[i] & dense[j]).sum() for i, j in pairs]
    encoded = [(i, j) for i, j in pairs if max(i, j) < 18]  # pycocotools stops at runs of no pixels
    expected = [coco.area(coco.merge([plain(masks[i]), plain(masks[j])], True)) for i, j in encoded]
    assert intersections(runs, runs, *np.transpose(encoded)).tolist() == expected


def test_masks_of_different_frames_have_nothing_in_common() -> None:
    runs = read([encode(np.ones((2, 3))), encode(np.ones((3, 2))), None])
    rows, columns = np.array([0, 0, 2, 2, 1]), np.array([0, 1, 0, 2, 1])
    assert intersections(runs, runs, rows, columns).tolist() == [6, 0, 0, 0, 6]


def test_places_beyond_32_bits() -> None:
    """100,000 x 50,000 pixels: a row of background, then 4,999,900,000 pixels, whose number has 7 characters."""
    size, pixels = (100_000, 50_000), 4_999_900_000
    mask = Mask(*size, coco.frPyObjects({"size": [1, 100_000], "counts": [100_000]}, 1, 100_000)["counts"])
    digits = [pixels >> shift & 31 for shift in range(0, 35, 5)]
    number = bytes(48 + digit + 32 * (place < 6) for place, digit in enumerate(digits))
    runs = read([mask._replace(counts=mask.counts + number)])
    assert runs.areas.tolist() == [pixels]
    assert intersections(runs, runs, np.zeros(1, np.int64), np.zeros(1, np.int64)).tolist() == [pixels]


@pytest.mark.parametrize("batch", [1, 7, 1 << 13])
def test_sound_masks_pass(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(run_lengths, "_BATCH", batch)
    assert find_corrupt(MASKS) is None
    assert find_corrupt([]) is None


def test_agrees_with_reading_masks_one_by_one() -> None:
    rng = np.random.default_rng(1)
    corrupt = 0
    for _ in range(1500):
        height, width, counts = MASKS[rng.integers(len(MASKS))]
        changed = bytearray(counts)
        changed[rng.integers(len(changed))] = rng.integers(40, 120)
        mask = Mask(height, width, bytes(changed))
        error = message(mask)
        assert find_corrupt([*MASKS[:3], mask, *MASKS[3:5]]) == (None if error is None else (3, error))
        corrupt += error is not None
    assert 200 < corrupt < 1500


def test_any_bytes_are_read_or_refused() -> None:
    """Short texts of any bytes, of numbers, and of characters after which a number continues."""
    rng = np.random.default_rng(2)
    sound = 0
    for low, high in [(0, 256), (48, 112), (78, 82), (80, 112), (48, 56)]:
        for _ in range(600):
            text = rng.integers(low, high, rng.integers(0, 24)).astype(np.uint8).tobytes()
            mask = Mask(int(rng.integers(1, 5)), int(rng.integers(1, 5)), text)
            error = message(mask)
            assert find_corrupt([mask, MASKS[0]]) == (None if error is None else (0, error))
            sound += error is None
    assert sound > 5


@pytest.mark.parametrize("counts", [b"", b"P", b"06P", b"0 ", b"ooooooo0", b"07", b"0700", b"0O7", b"P" * 99])
def test_corrupt_masks_are_found_wherever_they_are(monkeypatch: pytest.MonkeyPatch, counts: bytes) -> None:
    mask = Mask(2, 3, counts)
    for position in (0, 30, 60):
        assert find_corrupt([*MASKS[:position], mask, *MASKS[position:], mask])[0] == position  # type: ignore[index]
    monkeypatch.setattr(run_lengths, "_BATCH", 1)
    assert find_corrupt([*MASKS, mask])[0] == len(MASKS)  # type: ignore[index]
    with pytest.raises(CorruptMaskError, match="mask 1: counts ") as error:
        read([None, mask])
    assert error.value.position == 1
