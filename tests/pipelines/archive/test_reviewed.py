from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from pipelines.archive.formats.video_labels import VideoLabels
from pipelines.archive.reviewed import ReviewedVideo, review_video
from pipelines.archive.reviews import Decision
from tests.pipelines.archive.decisions import decide

FRAMES = {1: (0, 3, 6, 9), 2: (3, 6), 5: (9, 12)}
NAMES = {1: "star", 2: "ring", 5: "moon"}


def rle(row: int) -> dict[str, Any]:
    dense = np.zeros((8, 4), np.uint8)
    dense[row] = 1
    encoded = coco.encode(np.asfortranarray(dense))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def video(names: dict[int, str] = NAMES) -> VideoLabels:
    masks = [
        {"track_id": track, "frame": frame, "x": 0, "y": track, "width": 4, "height": 1, "area": 4, "rle": rle(track)}
        for track, frames in FRAMES.items()
        for frame in frames
    ]
    return VideoLabels(
        row={"video_id": "a", "model_fingerprint": None, "config_fingerprint": None},
        tracks={track: {"track_id": track, "category": names[track], "score": 0.5} for track in FRAMES},
        masks=sorted(masks, key=lambda mask: mask["frame"]),
        frames=[0, 3, 6, 9, 12],
    )


def review(*decisions: Decision, names: dict[int, str] = NAMES) -> ReviewedVideo:
    return review_video(video(names), [vars(decision) for decision in decisions])


def frames(reviewed: ReviewedVideo) -> dict[int, tuple[int, ...]]:
    masks = reviewed.labels.masks_of_tracks()
    return {track: tuple(mask["frame"] for mask in of_track) for track, of_track in masks.items()}


def judged(reviewed: ReviewedVideo) -> dict[int, tuple[str, str]]:
    return {track: (each.verdict, each.category) for track, each in reviewed.judged.items()}


UNDECIDED = {track: ("undecided", name) for track, name in NAMES.items()}


def test_without_decisions_nothing_changes() -> None:
    reviewed = review()
    assert frames(reviewed) == FRAMES
    assert judged(reviewed) == UNDECIDED


def test_tracks_are_accepted_rejected_and_renamed() -> None:
    reviewed = review(decide(1, "accept", "star"), decide(2, "reject", "ring"), decide(5, "rename", "comet"))
    assert judged(reviewed) == {1: ("accepted", "star"), 2: ("rejected", "ring"), 5: ("accepted", "comet")}
    assert reviewed.labels.tracks[5]["category"] == "comet"
    assert frames(reviewed) == FRAMES


def test_a_decision_holds_under_another_vocabulary_as_far_as_it_goes() -> None:
    """What was confirmed to be a star is one; what was rejected as a ring may be the torus that it is called now."""
    renamed = {1: "sun", 2: "torus", 5: "moon"}
    reviewed = review(decide(1, "accept", "star"), decide(2, "reject", "ring"), names=renamed)
    assert judged(reviewed) == UNDECIDED | {1: ("accepted", "star"), 2: ("undecided", "torus")}


def test_a_piece_is_judged_by_itself() -> None:
    reviewed = review(decide(1, "accept", "star"), decide(1, "reject", "star", split_at=6))
    assert frames(reviewed) == {1: (0, 3), 2: (3, 6), 5: (9, 12), 6: (6, 9)}
    assert judged(reviewed) == UNDECIDED | {1: ("accepted", "star"), 6: ("rejected", "star")}
    twice = review(decide(1, "split", split_at=6), decide(1, "split", split_at=9))
    assert frames(twice) == {1: (0, 3), 2: (3, 6), 5: (9, 12), 6: (6,), 7: (9,)}


def test_tracks_that_belong_together_are_one() -> None:
    reviewed = review(decide(5, "merge", merged_with=2), decide(2, "rename", "comet"))
    assert frames(reviewed) == {1: (0, 3, 6, 9), 2: (3, 6, 9, 12)}
    assert judged(reviewed) == {1: ("undecided", "star"), 2: ("accepted", "comet")}


def test_masks_of_one_frame_are_united() -> None:
    reviewed = review(decide(2, "merge", merged_with=1))
    assert frames(reviewed) == {1: (0, 3, 6, 9), 5: (9, 12)}
    united = next(mask for mask in reviewed.labels.masks if mask["frame"] == 3)
    dense = coco.decode({"size": united["rle"]["size"], "counts": united["rle"]["counts"].encode()})
    assert dense.sum(1).tolist() == [0, 4, 4, 0, 0, 0, 0, 0]
    assert [united[name] for name in ("x", "y", "width", "height", "area")] == [0, 1, 4, 2, 8]


def test_objects_that_swapped_tracks_are_set_right() -> None:
    """Each track is split where they swapped, and what follows belongs to the other."""
    swaps = [decide(1, "merge", split_at=6, merged_with=2), decide(2, "merge", split_at=6, merged_with=1)]
    assert frames(review(*swaps)) == {1: (0, 3, 6), 2: (3, 6, 9), 5: (9, 12)}


@pytest.mark.parametrize("order", [(1, 2, 5), (5, 2, 1), (2, 5, 1)])
def test_merges_in_a_circle_are_one_track(order: tuple[int, int, int]) -> None:
    circle = [decide(a, "merge", merged_with=b) for a, b in zip(order, (*order[1:], order[0]), strict=True)]
    assert frames(review(*circle)) == {1: (0, 3, 6, 9, 12)}


def test_stale_decisions_and_unknown_tracks_are_left_out() -> None:
    stale = decide(1, "reject", "star", model_fingerprint="of another model")
    unknown = [decide(9, "reject", "star"), decide(1, "merge", merged_with=9)]
    assert judged(review(stale, *unknown)) == UNDECIDED
    assert frames(review(stale, *unknown)) == FRAMES
