import numpy as np
import pytest
from pycocotools import mask as coco

from openvis_model import rle
from pipelines.datasets.run_lengths import read
from pipelines.datasets.shared_pixels import compare_tubes, intersections
from tests.pipelines.datasets.masks import encode, plain, special_masks


@pytest.mark.parametrize("size", [(5, 3), (1, 9), (9, 1), (31, 17)])
def test_intersections(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(size))
    masks = [encode(rng.random(size) < share) for share in (0, 0.02, 0.3, 0.5, 0.9, 1) for _ in range(3)]
    masks += special_masks() if size == (5, 3) else []
    runs, n = read(masks), len(masks)
    pairs = np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1).reshape(-1, 2)
    pairs = rng.permutation(pairs)
    dense = [rle.decode(mask[:2], mask.counts) for mask in masks]
    assert intersections(runs, runs, *pairs.T).tolist() == [(dense[i] & dense[j]).sum() for i, j in pairs]
    encoded = [(i, j) for i, j in pairs if max(i, j) < 18]  # pycocotools stops at runs of no pixels
    expected = [coco.area(coco.merge([plain(masks[i]), plain(masks[j])], True)) for i, j in encoded]
    assert intersections(runs, runs, *np.transpose(encoded)).tolist() == expected


def test_masks_of_different_frames_have_nothing_in_common() -> None:
    runs = read([encode(np.ones((2, 3))), encode(np.ones((3, 2))), None])
    rows, columns = np.array([0, 0, 2, 2, 1]), np.array([0, 1, 0, 2, 1])
    assert intersections(runs, runs, rows, columns).tolist() == [6, 0, 0, 0, 6]


def test_tubes_are_compared_frame_by_frame() -> None:
    """Of the first pair, the second frame has an IoU of 1/2; the second pair cannot reach an IoU of 0.9."""
    left, half, full, other = (encode(np.tile(row, (2, 1))) for row in ([1, 0, 0, 0], [1, 1, 0, 0], [1] * 4, [1] * 3))
    runs = read([full, left, None, half, other])
    frames, marked = np.array([[0, 3, 1], [1, 3, 1], [0, 2, 2], [4, 0, 1]]), np.zeros(4, bool)
    sums = compare_tubes(runs, runs, frames, np.array([0, 0.9, 0, 0]), np.array([0, -1, 1, 3]), marked)
    assert sums.tolist() == [[4, 8], [0, 0], [2, 12], [0, 0]]
    assert marked.tolist() == [True, False, True, False]
