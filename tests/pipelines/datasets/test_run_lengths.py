import numpy as np
import pytest
from pycocotools import mask as coco

from openvis_model import rle
from pipelines.datasets import run_lengths
from pipelines.datasets.annotations import Mask
from pipelines.datasets.run_lengths import CorruptMaskError, boxes, find_corrupt, read
from pipelines.datasets.shared_pixels import intersections
from tests.pipelines.datasets.masks import plain, random_masks, special_masks


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
