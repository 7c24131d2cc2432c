from typing import Any

import numpy as np
import pytest

from openvis_model.training.training_clip import TrainingClip

FRAMES = np.zeros((2, 32, 64, 3), np.uint8)
MASKS = np.ones((3, 2, 32, 64), bool)
CATEGORIES = np.array([4, 0, 4])


def clip(**changes: Any) -> TrainingClip:
    return TrainingClip(**{"frames": FRAMES, "masks": MASKS, "categories": CATEGORIES, "seed": 1, **changes})


def test_objects_may_be_absent_at_times_and_a_clip_may_have_none() -> None:
    masks = MASKS.copy()
    masks[1, 0] = False
    assert len(clip(masks=masks).masks) == 3
    assert len(clip(masks=MASKS[:0], categories=CATEGORIES[:0]).masks) == 0
    assert len(clip(masks=MASKS[:0], categories=CATEGORIES[:0], rivals=np.zeros((0, 5), bool)).masks) == 0
    assert clip(seed=2**63 - 1).seed == 2**63 - 1


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": FRAMES.astype(np.float32)}, r"frames: expected uint8 .* got float32"),
        ({"frames": FRAMES[0]}, r"frames: expected uint8 \[T, H, W, 3\] with pixels, got uint8 \(32, 64, 3\)"),
        ({"frames": FRAMES[..., :1]}, r"frames: .* got uint8 \(2, 32, 64, 1\)"),
        ({"frames": FRAMES[:0], "masks": MASKS[:, :0]}, r"frames: .* with pixels"),
        ({"masks": MASKS.astype(np.uint8)}, "masks: expected bool .* got uint8"),
        ({"masks": MASKS[:, :1]}, r"masks: .* of frames \(2, 32, 64\), got bool \(3, 1, 32, 64\)"),
        ({"masks": MASKS[..., :32]}, r"masks: .* got bool \(3, 2, 32, 32\)"),
        ({"masks": np.concatenate([MASKS[:2], ~MASKS[:1]])}, "masks: object 2 has no pixel in any frame"),
        ({"categories": CATEGORIES[:2]}, r"categories: expected int64, one for each of 3 masks, got int64 \(2,\)"),
        ({"categories": CATEGORIES.astype(np.int32)}, "categories: .* got int32"),
        ({"categories": CATEGORIES - 1}, "categories: expected rows of a vocabulary, from 0, got -1"),
        ({"rivals": np.ones((3, 5), np.uint8)}, r"rivals: expected bool, .* got uint8 \(3, 5\)"),
        ({"rivals": np.ones((2, 5), bool)}, r"rivals: .* a row for each of 3 masks .* got bool \(2, 5\)"),
        ({"rivals": np.ones((3, 4), bool)}, r"rivals: .* more columns than the largest category 4, got bool \(3, 4\)"),
        ({"rivals": np.ones(3, bool)}, r"rivals: .* got bool \(3,\)"),
        ({"seed": -1}, "seed: expected 0 to .* got -1"),
        ({"seed": 1 << 63}, "seed: expected 0 to"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clip(**changes)
