import numpy as np
import pytest

from pipelines.metrics.tube_iou import Tubes, compare
from tests.pipelines.metrics.tracks import Masks, area, encode, strip
from tests.reference_evaluation import plain_iou, to_coco


def tube_iou(truths: Tubes, found: Tubes, pairs: np.ndarray, least: float = 0) -> np.ndarray:  # type: ignore[type-arg]
    return compare(truths, found, pairs, least=least).iou


def followed_share(truths: Tubes, found: Tubes, pairs: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    return compare(truths, found, pairs, followers=np.arange(len(found)), follower=pairs[:, 1]).followed


def all_pairs(n: int, m: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.stack(np.meshgrid(np.arange(n), np.arange(m), indexing="ij"), -1).reshape(-1, 2)


def iou(truth: Masks, found: Masks) -> float:
    return float(tube_iou(Tubes([truth]), Tubes([found]), np.array([[0, 0]]))[0])


def random_tubes(rng: np.random.Generator, n: int) -> list[Masks]:
    """Tracks of 0 to 6 frames; frame t has an odd size of its own, but one in ten has the next one's."""
    sizes = [(1, 1), (1, 17), (23, 1), (8, 8), (31, 65), (40, 33), (5, 7)]
    tracks = []
    for _ in range(n):
        masks = []
        for t in range(rng.integers(0, 7)):
            density = rng.choice([0, 0.02, 0.5, 0.9, 1])
            dense = rng.random(sizes[t + (rng.random() < 0.1)]) < density
            masks.append(None if rng.random() < 0.2 else encode(dense))
        tracks.append(masks)
    return tracks


@pytest.mark.parametrize("seed", range(4))
def test_equals_merging_frame_by_frame(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truths, found = random_tubes(rng, 9), random_tubes(rng, 12)
    pairs = rng.permutation(all_pairs(9, 12))[:80]
    expected = [plain_iou(list(map(to_coco, found[p])), list(map(to_coco, truths[g]))) for g, p in pairs]
    assert tube_iou(Tubes(truths), Tubes(found), pairs).tolist() == expected
    assert max(expected) > 0


def test_pairs_do_not_depend_on_each_other() -> None:
    rng = np.random.default_rng(5)
    truths, found = Tubes(random_tubes(rng, 6)), Tubes(random_tubes(rng, 60))
    pairs = all_pairs(6, 60)
    together = tube_iou(truths, found, pairs)
    assert [tube_iou(truths, found, pair[None])[0] for pair in pairs] == together.tolist()


def test_areas() -> None:
    rng = np.random.default_rng(6)
    tracks = random_tubes(rng, 120)  # more masks than are given to pycocotools at a time
    tubes = Tubes(tracks)
    areas = [[area(mask) or 0 for mask in masks] for masks in tracks]
    assert len(tubes) == 120
    assert tubes.area.tolist() == [sum(its) for its in areas]
    assert tubes.mean_area.tolist() == [np.mean([a for a in its if a]) if any(its) else 0 for its in areas]


def test_surplus_frames_are_cut_but_absent_ones_count() -> None:
    one, two = strip(0, 10), strip(0, 30)
    assert iou([one, two], [one]) == iou([one], [one, two]) == 1
    assert iou([one, two], [one, None]) == 10 / 40
    assert iou([one, two], [one, strip(0, 0)]) == 10 / 40
    assert Tubes([[one, two]]).mean_area[0] == 20


def test_frames_of_different_sizes_add_nothing() -> None:
    one, other = strip(0, 10), strip(0, 10, (2, 200))
    assert iou([one, one], [other, one]) == 1
    assert iou([one], [other]) == 0
    assert iou([one, one], [strip(0, 0, (2, 200)), one]) == 1


def test_nothing_overlaps_nothing() -> None:
    empty = strip(0, 0)
    assert iou([None, empty], [empty, None]) == 0
    assert iou([], [empty]) == 0
    none = Tubes([])
    assert len(none) == len(none.area) == len(none.mean_area) == 0
    assert tube_iou(none, Tubes([[empty]]), np.zeros((0, 2), np.int64)).shape == (0,)


def test_pixels_are_counted_exactly() -> None:
    """The share of a prediction that is covered is a float; the pixels that it stands for are not."""
    assert iou([strip(0, 1)], [strip(0, 49)]) == 1 / 49, "1 / 49 * 49 is below 1"
    size = (4000, 5000)
    found, truth = strip(0, 19_999_999, size), strip(3, 20_000_000, size)
    assert iou([truth] * 3, [found] * 3) == (3 * 19_999_996) / (3 * 20_000_000)


@pytest.mark.parametrize("least", [0.1, 0.5, 0.9])
def test_pairs_that_cannot_reach_an_iou_may_be_left_out(least: float) -> None:
    rng = np.random.default_rng(8)
    truths, found = Tubes(random_tubes(rng, 20)), Tubes(random_tubes(rng, 20))
    pairs = all_pairs(20, 20)
    every, some = tube_iou(truths, found, pairs), tube_iou(truths, found, pairs, least=least)
    assert some[every >= least].tolist() == every[every >= least].tolist()
    assert ((some == every) | (some == 0)).all()
    assert (some < every).any()
    one, two = Tubes([[strip(0, 10)]]), Tubes([[strip(0, 20)]])
    assert tube_iou(one, two, np.array([[0, 0]]), least=0.5) == 0.5, "areas in the ratio that is asked for"


def share(found: Masks, *truths: Masks) -> float:
    return float(followed_share(Tubes(truths), Tubes([found]), all_pairs(len(truths), 1))[0])


def test_a_prediction_follows_an_object_where_half_of_their_union_is_shared() -> None:
    one, two = strip(0, 10), strip(50, 60)
    assert share([one, one, two, None], [one, two, one, one]) == 1 / 3, "absent frames of the prediction do not count"
    assert share([one, None], [None, one]) == 0
    assert share([one, strip(0, 5), strip(0, 4)], [one, one, one]) == 2 / 3
    assert share([one, strip(0, 20), strip(0, 21)], [one, one, one]) == 2 / 3


def test_any_of_the_objects_is_followed_that_a_prediction_is_paired_with() -> None:
    one, two = strip(0, 10), strip(50, 60)
    truths, found = Tubes([[one, one], [two, two]]), Tubes([[one, two], [one, two], [one, two]])
    assert followed_share(truths, found, np.array([[0, 0], [1, 0], [1, 1]])).tolist() == [1, 1 / 2, 0]
    assert share([one], [one], [strip(0, 9)]) == 1, "a frame counts once"


def test_frames_that_cannot_be_compared_are_not_followed() -> None:
    one, empty, other = strip(0, 10), strip(0, 0), strip(0, 10, (2, 200))
    assert share([one, empty, other], [one, empty, one]) == 1 / 2
    assert share([one, one], [one]) == 1 / 2
    assert share([empty, None], [empty, None]) == share([], [one]) == 0
    assert followed_share(Tubes([]), Tubes([[one]]), np.zeros((0, 2), np.int64)).tolist() == [0]


def test_a_follower_is_one_of_the_views_of_a_prediction() -> None:
    """A track that is predicted under two categories is compared with the objects of either."""
    one, two = strip(0, 10), strip(50, 60)
    truths, found = Tubes([[one, one], [two, two]]), Tubes([[two], [one, two]])
    pairs, follower = np.array([[0, 1], [1, 1], [0, 0]]), np.array([1, 2, -1])
    compared = compare(truths, found, pairs, followers=np.array([0, 1, 1]), follower=follower)
    assert compared.followed.tolist() == [0, 1 / 2, 1 / 2]
    assert compared.iou.tolist() == tube_iou(truths, found, pairs).tolist() == [1 / 3, 1 / 3, 0]
