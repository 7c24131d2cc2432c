from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from pipelines.datasets.annotations import Federation
from pipelines.training.federation import rival_names
from tests.pipelines.datasets.training_sets import box

NAMES = 6
DEER, TREE, TOY, CAR, WHEEL, CLOUD = range(NAMES)


def encoded(*masks: np.ndarray) -> list[dict[str, Any]]:
    return [coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]


def rivals(federation: Federation, categories: list[int], *masks: np.ndarray) -> list[set[int]]:
    """The names that compete with that of each object."""
    found = rival_names(federation, np.array(categories, np.int64), [encoded(*masks)], NAMES)
    return [set(np.flatnonzero(row).tolist()) for row in found]


LEFT, RIGHT, BELOW = box(0, 0, 20, 20), box(0, 40, 20, 20), box(40, 0, 20, 20)


def test_known_are_absent_names_and_those_annotated_elsewhere() -> None:
    """Of wheels and clouds nothing is known: nobody sought them."""
    assert rivals(Federation(absent=(CAR,)), [DEER, TREE, DEER], LEFT, RIGHT, BELOW) == [
        {TREE, CAR},
        {DEER, CAR},
        {TREE, CAR},
    ]


def test_a_name_annotated_in_part_may_be_right_for_other_objects() -> None:
    federation = Federation(absent=(CAR,), partial=(TREE,))
    assert rivals(federation, [DEER, TREE], LEFT, RIGHT) == [{CAR}, {DEER, CAR}]


def test_two_names_of_one_object_do_not_compete() -> None:
    """LVIS' own example: a toy deer, annotated once as each; the IoU of the two masks is 18 / 20."""
    toy_deer = box(0, 0, 18, 20)
    assert rivals(Federation(), [DEER, TOY, TREE], LEFT, toy_deer, RIGHT) == [{TREE}, {TREE}, {DEER, TOY}]
    # Another deer that is no toy does not make "deer" wrong for the toy.
    assert rivals(Federation(), [DEER, TOY, DEER], LEFT, toy_deer, RIGHT) == [set(), set(), {TOY}]


def test_a_part_competes_with_its_whole() -> None:
    wheel = box(10, 0, 10, 10)  # IoU 1/4
    assert rivals(Federation(), [CAR, WHEEL], LEFT, wheel) == [{WHEEL}, {CAR}]


@pytest.mark.parametrize("federation", [Federation(), Federation(absent=(CAR,))])
def test_an_image_without_objects(federation: Federation) -> None:
    assert rival_names(federation, np.zeros(0, np.int64), [], NAMES).shape == (0, NAMES)


def test_objects_are_the_same_if_they_are_in_any_frame() -> None:
    """An empty mask, of an object that is out of sight, is nobody's."""
    nothing = np.zeros_like(LEFT)
    frames = [encoded(LEFT, RIGHT, nothing), encoded(BELOW, nothing, BELOW)]
    found = rival_names(Federation(), np.array([DEER, TREE, TOY], np.int64), frames, NAMES)
    assert [set(np.flatnonzero(row).tolist()) for row in found] == [{TREE}, {DEER, TOY}, {TREE}]
