import numpy as np

from openvis_model.dead_leaves import OBJECTS, VISIBLE, dead_leaves


def test_each_object_has_one_colour_and_can_be_seen() -> None:
    picture, masks = dead_leaves(0, 96, 128)
    assert picture.shape == (96, 128, 3)
    assert masks.shape == (OBJECTS, 96, 128)
    assert masks.sum(0).max() == 1
    assert masks.sum((1, 2)).min() >= VISIBLE * 96 * 128
    assert all(len(np.unique(picture[mask], axis=0)) == 1 for mask in masks)


def test_pictures_are_always_the_same_and_all_different() -> None:
    assert np.array_equal(dead_leaves(1, 64, 64)[0], dead_leaves(1, 64, 64)[0])
    assert (dead_leaves(1, 64, 64)[0] != dead_leaves(2, 64, 64)[0]).any()
