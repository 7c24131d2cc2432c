import numpy as np
import pytest
from pycocotools import mask as coco

from openvis_model import rle
from pipelines.datasets import run_lengths
from pipelines.datasets.annotations import Mask
from pipelines.datasets.run_lengths import find_corrupt


def random_masks(n: int) -> list[Mask]:
    rng = np.random.default_rng(0)
    masks = []
    for _ in range(n):
        height, width = (int(side) for side in rng.choice([1, 2, 7, 40, 700], 2))
        dense = rng.random((height, width)) < rng.choice([0, 0.001, 0.5, 0.9, 1])
        masks.append(Mask(height, width, coco.encode(np.asfortranarray(dense.astype(np.uint8)))["counts"]))
    return masks


def message(mask: Mask) -> str | None:
    try:
        rle.run_lengths(mask[:2], mask.counts)
    except ValueError as error:
        return str(error)
    return None


MASKS = random_masks(60)


@pytest.mark.parametrize("characters", [1, 1000, 1 << 20])
def test_sound_masks_pass(monkeypatch: pytest.MonkeyPatch, characters: int) -> None:
    monkeypatch.setattr(run_lengths, "_CHUNK_CHARACTERS", characters)
    assert find_corrupt(MASKS) is None
    assert find_corrupt([]) is None


def test_agrees_with_reading_masks_one_by_one() -> None:
    rng = np.random.default_rng(1)
    corrupt = 0
    for _ in range(400):
        height, width, counts = MASKS[rng.integers(len(MASKS))]
        changed = bytearray(counts)
        changed[rng.integers(len(changed))] = rng.integers(40, 120)
        mask = Mask(height, width, bytes(changed))
        error = message(mask)
        assert find_corrupt([*MASKS[:3], mask, *MASKS[3:5]]) == (None if error is None else (3, error))
        corrupt += error is not None
    assert 50 < corrupt < 400


@pytest.mark.parametrize("counts", [b"", b"P", b"06P", b"0 ", b"ooooooo0", b"07", b"0700", b"0O7"])
def test_corrupt_masks_are_found_wherever_they_are(monkeypatch: pytest.MonkeyPatch, counts: bytes) -> None:
    mask = Mask(2, 3, counts)
    for position in (0, 30, 60):
        assert find_corrupt([*MASKS[:position], mask, *MASKS[position:], mask])[0] == position  # type: ignore[index]
    monkeypatch.setattr(run_lengths, "_CHUNK_CHARACTERS", 1)
    assert find_corrupt([*MASKS, mask])[0] == 60  # type: ignore[index]
