from typing import Any

import numpy as np
import pytest

from pipelines.datasets.annotations import Mask
from pipelines.datasets.burst import (
    COMMON,
    MERGED,
    NOT_EVALUATED,
    BurstDetections,
    BurstGroundTruth,
    BurstPredictions,
    BurstSequence,
)


def test_category_lists() -> None:
    assert (len(COMMON), len(NOT_EVALUATED), len(MERGED)) == (78, 45, 7)
    assert not COMMON & NOT_EVALUATED
    assert {MERGED[504], MERGED[720]} == {347} <= COMMON


def columns(frame: list[int]) -> dict[str, Any]:
    """As many rows, with track ids, scores and masks that tell them apart."""
    count = len(frame)
    return {
        "frame": np.array(frame, np.int64),
        "track_id": np.arange(1, count + 1),
        "category_id": np.full(count, 13),
        "score": np.arange(count) / 8,
        "masks": tuple(Mask(1, 1, b"%d" % row) for row in range(count)),
    }


def truth(path: str, **sequences: list[str]) -> BurstGroundTruth:
    """A ground truth without objects: frames by name of the sequence."""
    return BurstGroundTruth(
        path=path,
        sha256="",
        split="val",
        sequences=tuple(
            BurstSequence(
                name=f"val/AVA/{name}",
                height=6,
                width=8,
                image_paths=tuple(paths),
                times=np.arange(len(paths)),
                negative=frozenset(),
                not_exhaustive=frozenset(),
                objects=BurstDetections(**columns([])),
            )
            for name, paths in sequences.items()
        ),
        categories=(),
        warnings={},
    )


def test_rows_are_selected_in_order() -> None:
    rows = BurstDetections(**columns([0, 0, 2]))
    for chosen in (np.array([2, 0]), np.array([True, False, True])):
        its = rows.select(chosen)
        order = [2, 0] if chosen.dtype == np.int64 else [0, 2]
        assert its.track_id.tolist() == [row + 1 for row in order]
        assert its.masks == tuple(Mask(1, 1, b"%d" % row) for row in order)
        assert len(its) == 2


def test_videos_are_the_annotated_frames() -> None:
    """In the folder of the sequence, where exports look for them."""
    kitchen, street = truth("gt.json", kitchen=["k_31.png", "k_1.png"], street=["frame1.jpg"]).videos
    assert (kitchen.id, kitchen.height, kitchen.width, kitchen.length) == (1, 6, 8, 2)
    assert kitchen.file_names == ("val/AVA/kitchen/k_31.png", "val/AVA/kitchen/k_1.png")
    assert (street.id, street.length, street.file_names) == (2, 1, ("val/AVA/street/frame1.jpg",))


def test_predictions_are_aligned_to_a_file_with_other_frames() -> None:
    whole = truth("all.json", kitchen=["31.png", "1.png"], street=["1.jpg"])
    rows = (BurstDetections(**columns([1, 1, 0])), BurstDetections(**columns([0])))
    predictions = BurstPredictions(path="", sha256="", sequences=rows, warnings={})
    smaller = truth("part.json", kitchen=["1.png"])
    aligned = predictions.aligned(whole, smaller)
    (kitchen,) = aligned.sequences
    assert (kitchen.frame.tolist(), kitchen.track_id.tolist()) == ([0, 0], [1, 2])
    with pytest.raises(ValueError, match="all.json: part.json lacks sequence val/AVA/kitchen, or a frame; use files"):
        aligned.aligned(smaller, whole)
