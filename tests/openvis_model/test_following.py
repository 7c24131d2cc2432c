from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from openvis_model.following import ABSENT, NoFitError, best_fit, follow
from openvis_model.instances import Instances
from openvis_model.options import AssociationConfig, VideoTrackerConfig
from openvis_model.prompts import parse_prompt
from tests.openvis_model.squares import A, B, C, frame

CONFIG = VideoTrackerConfig(association=AssociationConfig(kind="hungarian"), max_gap=1)


def fit(text: str, instances: Instances, threshold: float = 0.5) -> int:
    return best_fit(parse_prompt(f"1s: {text}", "o"), instances, threshold)


def test_a_box_means_the_mask_with_the_largest_overlap() -> None:
    """IoU of 10 × 10 at (0, 0): 0.5 with 10 × 20, 0.81 with 9 × 9."""
    assert fit("box 0 0 10 10", frame((0, 0, 10, 20), (0, 0, 9, 9))) == 1
    assert fit("box 0 0 10 10", frame((0, 0, 9, 9), (0, 0, 10, 20))) == 0
    assert fit("box 0 0 10 10", frame((0, 0, 10, 20))) == 0
    with pytest.raises(NoFitError, match=r"of 1 in the frame, the best has an IoU of 0\.45 with the box, 0\.5 is"):
        fit("box 0 0 9 10", frame((0, 0, 10, 20)))


def test_of_similar_boxes_the_most_certain_is_meant() -> None:
    """IoU 1 and 0.9: equally good. IoU 1 and 0.8: not."""
    assert fit("box 0 0 10 10", frame((0, 0, 10, 10), (0, 0, 10, 9), objectness=(0.6, 0.9))) == 1
    assert fit("box 0 0 10 10", frame((0, 0, 10, 10), (0, 0, 10, 8), objectness=(0.6, 0.9))) == 0


def test_points_mean_the_smallest_mask_that_is_certain_enough() -> None:
    """A shirt on a person, and a speck that the network hardly believes in."""
    person, shirt, speck = (0, 0, 12, 20), (2, 4, 8, 8), (4, 6, 2, 2)
    seen = frame(person, shirt, speck, objectness=(0.9, 0.7, 0.3))
    assert fit("point 5 7", seen, threshold=0.2) == 1
    assert fit("point 5 7, point 1 1", seen, threshold=0.2) == 0
    assert fit("point 1 1", seen, threshold=0.2) == 0
    assert fit("point 5 7, not 3 5", frame(person, shirt, speck, objectness=(0.5, 0.5, 0.4)), threshold=0.2) == 2
    with pytest.raises(NoFitError, match="of 3 in the frame, none covers its points"):
        fit("point 15 5", seen, threshold=0.2)


def test_a_box_and_points_must_both_fit() -> None:
    seen = frame((0, 0, 10, 10), (0, 0, 10, 9))
    assert fit("box 0 0 10 10, point 5 9", seen) == 0
    assert fit("box 0 0 10 10, not 5 9", seen) == 1


def test_what_is_not_in_sight_is_not_meant() -> None:
    seen = frame((0, 0, 10, 10), (0, 0, 0, 0), objectness=(0.4, 0.9))
    with pytest.raises(NoFitError, match="of 0 in the frame, so none could"):
        fit("box 0 0 10 10", seen)
    assert fit("box 0 0 10 10", seen, threshold=0.4) == 0
    with pytest.raises(NoFitError, match="of 0 in the frame, so none could"):
        fit("point 1 1", frame())


def followed(frames: Sequence[Instances], *chosen: int) -> list[list[int]]:
    return [found.tolist() for found in follow(CONFIG, None, frames, chosen)]


def test_an_object_is_followed_among_others_in_both_directions() -> None:
    """It changes its place in the lists, is out of sight in one frame, which shows nothing at all, and comes back."""
    video = [
        frame(B, A, axes=(1, 0)),
        frame(A, axes=(0,)),
        frame(),
        frame(B, C, A, axes=(1, 2, 0)),
        frame(C, axes=(2,)),
    ]
    assert followed(video[3:], 2) == [[2], [ABSENT]]
    assert followed(video[3::-1], 2) == [[2], [ABSENT], [0], [1]]


def test_a_track_ends_after_its_gap() -> None:
    """`max_gap` is 1: in the third frame out of sight the track is over, and nothing is taken for it later."""
    there, away = frame(A, B, axes=(0, 1)), frame(B, axes=(1,))
    assert followed([there, away, there], 0) == [[0], [ABSENT], [0]]
    assert followed([there, away, away, there], 0) == [[0], [ABSENT]]
    assert followed([there, away, away, there], 0, 1) == [[0, 1], [ABSENT, 0], [ABSENT, 0], [ABSENT, 1]]


def test_a_lookalike_is_kept_apart_by_what_it_is_nearer_to() -> None:
    """The only instance of the second frame is a little like A, but is B: alone, A would become it."""
    nearly = torch.nn.functional.normalize(torch.tensor([0.5, 1.0, 0.0, 0.0]), dim=0)
    second = frame(B)
    second = replace(second, instance_tokens=nearly[None], queries=nearly[None])
    assert followed([frame(A, axes=(0,)), second], 0) == [[0], [0]]
    assert followed([frame(A, B, axes=(0, 1)), second], 0) == [[0], [ABSENT]]


def test_nothing_is_followed_through_no_frames() -> None:
    assert followed([], 0) == []
    assert np.array_equal(next(iter(follow(CONFIG, None, [frame(A)], [0]))), [0])
