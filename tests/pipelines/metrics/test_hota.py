import numpy as np
import pytest
from pycocotools import mask as coco

from pipelines.datasets.annotations import Mask
from pipelines.datasets.run_lengths import read
from pipelines.metrics import hota
from pipelines.metrics.frame_matching import FramePairs
from pipelines.metrics.hota import ALPHAS, HotaSums, box_iou, class_average, mask_iou

Pair = tuple[list[int], list[int], list[list[float]]]  # ids of objects, ids of predictions, similarity


def pair(gt_ids: list[int], prediction_ids: list[int], similarity: list[list[float]]) -> Pair:
    return gt_ids, prediction_ids, similarity


def hota_sums(frames: list[Pair]) -> HotaSums:
    return hota.hota_sums(
        FramePairs(
            gt_ids=np.array([number for ids, _, _ in frames for number in ids], np.int64),
            prediction_ids=np.array([number for _, ids, _ in frames for number in ids], np.int64),
            gt_counts=np.array([len(ids) for ids, _, _ in frames], np.int64),
            prediction_counts=np.array([len(ids) for _, ids, _ in frames], np.int64),
            similarity=np.array([x for _, _, rows in frames for row in rows for x in row], np.float64),
        )
    )


SPLIT = [pair([1], [5], [[1.0]]), pair([1], [5], [[1.0]]), pair([1], [6], [[1.0]]), pair([1], [6], [[1.0]])]


def test_a_track_in_two_halves() -> None:
    """Each of 4 matches: TPA 2, FNA 2, FPA 0, so A = 2 / 4."""
    scores = hota_sums(SPLIT).summary()
    assert scores["DetA"] == scores["DetRe"] == scores["DetPr"] == scores["AssPr"] == scores["LocA"] == 1
    assert scores["AssA"] == scores["AssRe"] == 0.5
    assert scores["HOTA"] == scores["HOTA(0)"] == scores["HOTALocA(0)"] == pytest.approx(0.5**0.5)
    assert (scores["HOTA_TP_sum"], scores["HOTA_FN_sum"], scores["HOTA_FP_sum"]) == (4 * 19, 0, 0)


def test_similarity_counts_up_to_its_threshold() -> None:
    """0.7 is reached by 0.05, 0.1, ..., 0.7: 14 of 19; where nothing is matched, LocA is 1."""
    scores = hota_sums([pair([1], [1], [[0.7]])]).summary()
    assert scores["DetA"] == scores["AssA"] == scores["HOTA"] == pytest.approx(14 / 19)
    assert scores["LocA"] == pytest.approx((14 * 0.7 + 5) / 19)
    assert scores["LocA(0)"] == scores["HOTALocA(0)"] == pytest.approx(0.7)


@pytest.mark.parametrize("twentieths", range(1, 20))
def test_exact_twentieths_reach_their_threshold(twentieths: int) -> None:
    """As floats, some thresholds are above: 3 * 0.05 > 0.15."""
    assert hota_sums([pair([1], [1], [[twentieths / 20]])]).tp.tolist() == [1] * twentieths + [0] * (19 - twentieths)


def test_matches_follow_the_tracks() -> None:
    """In frame 2, prediction 2 is more similar (0.8), but prediction 1 (0.6) has the object in frames 0 and 1.

    Shares: 1 and 1 in frames 0 and 1; in frame 2, 0.6 / 1.4 and 0.8 / 1.4.
    Alignment of 1: 2.4286 / (3 + 3 - 2.4286) = 0.68, of 2: 0.5714 / (3 + 1 - 0.5714) = 1 / 6.
    Scores: 0.6 * 0.68 = 0.408 and 0.8 / 6 = 0.133.
    Up to 0.6 (12 thresholds): 3 TP, 1 FP, A = 3 / 3. Then (0.65 to 0.9, 6): 2 TP, 1 FN, 2 FP, A = 2 / (3 + 3 - 2).
    """
    frames = [pair([1], [1], [[0.9]]), pair([1], [1], [[0.9]]), pair([1], [1, 2], [[0.6, 0.8]])]
    curves = hota_sums(frames).curves()
    np.testing.assert_allclose(curves["DetA"], [3 / 4] * 12 + [2 / 5] * 6 + [0])
    np.testing.assert_allclose(curves["AssA"], [1] * 12 + [1 / 2] * 6 + [0])
    np.testing.assert_allclose(curves["AssRe"], [1] * 12 + [2 / 3] * 6 + [0])
    np.testing.assert_allclose(curves["HOTA"], [0.75**0.5] * 12 + [0.2**0.5] * 6 + [0])
    np.testing.assert_allclose(curves["OWTA"], [1] * 12 + [(2 / 3 / 2) ** 0.5] * 6 + [0])
    np.testing.assert_allclose(curves["LocA"], [0.8] * 12 + [0.9] * 6 + [1])


def test_where_a_frame_cannot_tell_the_tracks_do() -> None:
    """Frame 1 alone cannot tell 1 from 2; frame 0 can, so that both tracks stay whole."""
    frames = [pair([1, 2], [1, 2], [[1, 0], [0, 1]]), pair([1, 2], [2, 1], [[0.5, 0.5], [0.5, 0.5]])]
    assert hota_sums(frames).curves()["AssA"][0] == 1


def test_sequences_are_pooled_by_detections() -> None:
    """4 matches of A = 1/2 and one of A = 1: 3 / 5. Ids of different sequences have nothing to do with each other."""
    other = [pair([1], [5, 6], [[1.0, 0.0]]), pair([], [7], [])]
    pooled = HotaSums.pool([hota_sums(SPLIT), hota_sums(other)])
    scores = pooled.summary()
    assert scores["AssA"] == pytest.approx(3 / 5)
    assert (scores["DetA"], scores["DetRe"]) == (pytest.approx(5 / 7), 1)  # 5 TP, 2 FP
    assert scores["OWTA"] == pytest.approx((3 / 5) ** 0.5)  # does not mind the false positives


def test_classes_are_averaged_by_score() -> None:
    """HOTA is a mean of means: not the root of mean DetA times mean AssA. Detections are summed."""
    one, other = hota_sums(SPLIT).summary(), hota_sums([pair([1], [], [])]).summary()
    average = class_average([one, other])
    assert average["HOTA"] == pytest.approx(0.5**0.5 / 2)
    assert (average["DetA"], average["AssA"], average["LocA"]) == (0.5, 0.25, 1)
    assert (average["HOTA_TP_sum"], average["HOTA_FN_sum"]) == (76, 19)


@pytest.mark.parametrize("frames", [[], [pair([], [], [])], [pair([1], [], [])], [pair([], [1], [])]])
def test_nothing_to_match(frames: list[Pair]) -> None:
    sums = hota_sums(frames)
    assert sums.tp.tolist() == [0] * len(ALPHAS)
    assert sums.fn[0] == sum(len(frame[0]) for frame in frames)
    assert sums.fp[0] == sum(len(frame[1]) for frame in frames)
    assert (sums.summary()["HOTA"], sums.summary()["LocA"]) == (0, 1)


def test_no_parts_are_zeros() -> None:
    assert HotaSums.pool([]).summary()["HOTA"] == 0


def test_repeated_ids_are_refused() -> None:
    with pytest.raises(ValueError, match=r"frame 1: ids \[3, 3\] occur more than once"):
        hota_sums([pair([1], [3], [[1]]), pair([1], [3, 3], [[1, 0]])])


def test_box_iou() -> None:
    """Shifted by half: 50 / 150. Touching: 0. Empty: 0, also with itself."""
    boxes = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [10, 0, 5, 5], [0, 0, 0, 0]], np.float64)
    rows, columns = np.repeat([0, 1, 3], 4), np.tile(np.arange(4), 3)
    expected = [1, 1 / 3, 0, 0, 1 / 3, 1, 25 / 100, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(box_iou(boxes[rows], boxes[columns]), expected)
    assert box_iou(boxes[:0], boxes[:0]).shape == (0,)


def test_mask_iou() -> None:
    """A triangle of 1 + 2 + ... + 10 = 55 of the 100 pixels of its box."""
    dense = np.array([np.ones((10, 10)), np.tril(np.ones((10, 10))), np.zeros((10, 10))], np.uint8)
    masks = [Mask(10, 10, coco.encode(np.asfortranarray(each))["counts"]) for each in dense]
    runs, rows, columns = read(masks), np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 2, 0, 1, 2])
    np.testing.assert_allclose(mask_iou(runs, runs, rows, columns), [1, 0.55, 0, 0.55, 1, 0])
    assert mask_iou(runs, runs, rows[:0], columns[:0]).shape == (0,)
