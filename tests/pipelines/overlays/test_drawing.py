from itertools import combinations
from typing import Any

import numpy as np
import pytest

from pipelines.overlays.drawing import DrawnObject, draw, track_colour


def make_object(size: tuple[int, int], box: tuple[int, int, int, int], track_id: int = 0, **kwargs: Any) -> DrawnObject:
    """A rectangle; the box is left, top, right, bottom."""
    mask = np.zeros(size, bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return DrawnObject(**{"track_id": track_id, "name": "red star", "score": 0.5, "mask": mask, **kwargs})


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def label_box(image: np.ndarray, each: DrawnObject) -> tuple[int, int, int, int]:
    """Of a label outside of its object: left, top, right, bottom of what has exactly the track's colour there."""
    rows, columns = np.nonzero((image == track_colour(each.track_id)).all(2) & ~each.mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_only_mask_and_label_change() -> None:
    frame = np.random.default_rng(0).integers(0, 200, (480, 640, 3), dtype=np.uint8)
    each = make_object((480, 640), (200, 200, 400, 300), 3)
    before = frame.copy()
    image = draw(frame, [each])
    assert (frame == before).all()
    left, top, right, bottom = label_box(image, each)
    assert (left, bottom) == (200, 200)  # sits on the object
    allowed = each.mask.copy()
    allowed[top:bottom, left:right] = True
    changed = (image != frame).any(2)
    assert not changed[~allowed].any()
    assert changed[allowed].mean() > 0.999  # a pixel may have had the colour already
    assert 15 < bottom - top < 40


def test_fill_lets_the_frame_through_and_the_contour_does_not() -> None:
    each = make_object((480, 640), (200, 200, 400, 300), 3)
    image, colour = draw(grey(480, 640), [each]), np.array(track_colour(3))
    contour = (image == colour).all(2) & each.mask
    inner = np.zeros_like(contour)
    inner[202:298, 202:398] = True
    assert (contour == (each.mask & ~inner)).all()
    assert np.abs(image[inner] - (0.45 * colour + 0.55 * 90)).max() < 2


def test_no_contour_at_the_edge_of_the_frame() -> None:
    each = make_object((480, 640), (0, 200, 640, 480), 3)
    contour = (draw(grey(480, 640), [each]) == track_colour(3)).all(2) & each.mask
    assert contour[200:202].all()
    assert not contour[202:].any()


def test_small_objects_are_drawn_over_large_ones_whatever_the_order() -> None:
    small, large = make_object((480, 640), (300, 250, 320, 270), 1), make_object((480, 640), (200, 200, 400, 300), 2)
    first, second = draw(grey(480, 640), [small, large]), draw(grey(480, 640), [large, small])
    assert (first == second).all()
    assert (first[250, 300] == track_colour(1)).all()


@pytest.mark.parametrize("size", [(384, 512), (720, 1280), (480, 200)])
def test_labels_stay_within_the_frame(size: tuple[int, int]) -> None:
    height, width = size
    for left in (0, width // 2, width - 6):
        for top in (0, height // 2, height - 6):
            each = make_object(size, (left, top, left + 6, top + 6), 5, name="a rather long name of something")
            x0, y0, x1, y1 = label_box(draw(grey(*size), [each]), each)
            box = draw(grey(*size), [each])[y0:y1, x0:x1]
            for edge in (box[0], box[-1], box[:, 0], box[:, -1]):  # all four sides show: nothing is cut off
                assert (edge == track_colour(5)).all()
            assert (x1 - x0) > min(width // 2, 200)


def test_labels_do_not_overlap() -> None:
    size = (480, 640)
    crowd = [make_object(size, (300 + 4 * i, 200 + 3 * i, 310 + 4 * i, 210 + 3 * i), i) for i in range(8)]
    image = draw(grey(*size), crowd)
    covered = np.logical_or.reduce([each.mask for each in crowd])
    boxes = []
    for each in crowd:
        rows, columns = np.nonzero((image == track_colour(each.track_id)).all(2) & ~covered)
        boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    for a, b in combinations(boxes, 2):
        assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_text_is_readable_on_every_colour() -> None:
    for track_id in range(60):
        each = make_object((480, 640), (200, 200, 400, 300), track_id)
        image = draw(grey(480, 640), [each])
        left, top, right, bottom = label_box(image, each)
        luminance = np.dot(image[top:bottom, left:right], (0.299, 0.587, 0.114))
        assert np.ptp(luminance) > 100


def test_colours_are_distinct_and_do_not_change() -> None:
    assert [track_colour(i) for i in range(3)] == [(255, 51, 51), (115, 156, 255), (132, 204, 31)]
    colours = np.array([track_colour(i) for i in range(200)]).astype(int)
    for start in range(195):
        distances = [np.abs(a - b).sum() for a, b in combinations(colours[start : start + 5], 2)]
        assert min(distances) > 60


def test_an_object_without_pixels_is_left_out() -> None:
    assert (draw(grey(96, 128), [make_object((96, 128), (5, 5, 5, 5))]) == 90).all()


def test_unusual_names_are_drawn() -> None:
    for name in ("", "café", "猫", "x" * 500):
        assert (draw(grey(480, 640), [make_object((480, 640), (9, 200, 50, 240), name=name)]) != 90).any()


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mask of track 0: expected \(96, 128\) pixels, got \(96, 130\)"):
        draw(grey(96, 128), [make_object((96, 130), (5, 5, 9, 9))])
