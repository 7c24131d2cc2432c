from typing import Any

import numpy as np
import pytest

from pipelines.shapes.render import MIN_VISIBLE as SHAPES_MIN_VISIBLE
from pipelines.training.augmentation import (
    MIN_VISIBLE,
    AugmentationConfig,
    Colour,
    Window,
    draw_colour,
    draw_windows,
    drop_invisible,
    recolour,
    view_frame,
    view_mask,
)

PLAIN = AugmentationConfig(flip=0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def disc(height: int, width: int, y: float, x: float, radius: float) -> np.ndarray:
    """A mask, uint8 [height, width]."""
    rows, columns = np.mgrid[:height, :width]
    return ((rows - y) ** 2 + (columns - x) ** 2 < radius**2).astype(np.uint8)


# Windows


def test_a_clip_has_one_window_and_a_still_one_per_frame() -> None:
    config = AugmentationConfig(min_crop=0.4)
    for seed in range(20):
        video = draw_windows(5, (200, 300), (64, 96), config, rng(seed), still=False)
        still = draw_windows(5, (200, 300), (64, 96), config, rng(seed), still=True)
        assert len(video) == len(still) == 5
        assert len(set(video)) == 1
        assert len(set(still)) == 5
        assert len({window.flip for window in still}) == 1


def test_without_random_crop_the_window_is_the_largest_in_the_middle() -> None:
    assert draw_windows(1, (200, 300), (64, 96), PLAIN, rng(), still=True) == [Window(0, 0, 200, 300, False)]
    assert draw_windows(1, (200, 400), (64, 96), PLAIN, rng(), still=False) == [Window(0, 50, 200, 300, False)]
    assert draw_windows(1, (301, 300), (64, 96), PLAIN, rng(), still=False) == [Window(51, 0, 200, 300, False)]
    assert draw_windows(1, (1, 300), (64, 96), PLAIN, rng(), still=False)[0].height == 1


def test_windows_vary_in_size_and_place_within_the_frame() -> None:
    config = AugmentationConfig(min_crop=0.5, flip=0.3)
    windows = [draw_windows(1, (200, 300), (64, 96), config, rng(seed), still=False)[0] for seed in range(400)]
    heights, tops, lefts = (np.array([getattr(it, name) for it in windows]) for name in ("height", "top", "left"))
    widths = np.array([window.width for window in windows])
    assert np.abs(widths / heights - 1.5).max() < 0.02
    assert 100 <= heights.min() < 105 < 195 < heights.max() <= 200
    for place, side, limit in ((tops, heights, 200), (lefts, widths, 300)):
        assert place.min() >= 0
        assert (place + side).max() <= limit
        share = (place / np.maximum(limit - side, 1))[limit - side > 10]
        assert share.min() < 0.05 < 0.95 < share.max()
    assert 0.2 < np.mean([window.flip for window in windows]) < 0.4


def test_flips_always_or_never() -> None:
    for flip in (0, 1):
        config = AugmentationConfig(flip=flip)
        flips = {draw_windows(2, (9, 9), (9, 9), config, rng(seed), still=True)[1].flip for seed in range(30)}
        assert flips == {bool(flip)}


# Pixels


def test_a_window_by_hand() -> None:
    frame = np.arange(4 * 6, dtype=np.uint8).reshape(4, 6, 1).repeat(3, 2)
    seen = view_frame(frame, Window(1, 2, 2, 3, False), (2, 3))
    assert seen[..., 0].tolist() == [[8, 9, 10], [14, 15, 16]]
    mirrored = view_frame(frame, Window(1, 2, 2, 3, True), (2, 3))
    assert mirrored[..., 0].tolist() == [[10, 9, 8], [16, 15, 14]]
    mask = np.zeros((4, 6), np.uint8)
    mask[1, 2] = 1
    assert view_mask(mask, Window(1, 2, 2, 3, False), (2, 3)).tolist() == [[True, False, False], [False] * 3]
    assert view_mask(mask, Window(1, 2, 2, 3, True), (2, 3)).tolist() == [[False, False, True], [False] * 3]


def test_a_mask_covers_pixels_that_it_fills_by_half() -> None:
    mask = np.array([[1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 1, 0]], np.uint8)  # 4, 1 and 1 of 4
    assert view_mask(mask, Window(0, 0, 2, 6, False), (1, 3)).tolist() == [[True, False, False]]
    mask[1, 3] = 1  # 2 of 4
    assert view_mask(mask, Window(0, 0, 2, 6, False), (1, 3)).tolist() == [[True, True, False]]


def test_a_mask_grows_by_the_nearest_pixel() -> None:
    grown = view_mask(np.array([[1, 0]], np.uint8), Window(0, 0, 1, 2, False), (2, 4))
    assert grown.tolist() == [[True, True, False, False]] * 2


def test_shrinking_averages_over_all_pixels() -> None:
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[:, ::2] = 200
    seen = view_frame(frame, Window(0, 0, 64, 64, False), (8, 8))
    assert np.abs(seen[:, 1:-1].astype(int) - 100).max() <= 2


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(32, 48), (90, 135), (64, 64)])
def test_masks_go_with_the_frames(size: tuple[int, int], flip: bool) -> None:
    mask = disc(100, 150, 37, 60, 21)
    frame = np.where(mask[..., None], (230, 20, 20), (20, 20, 230)).astype(np.uint8)
    window = Window(7, 11, 80, 120, flip)
    seen, covered = view_frame(frame, window, size), view_mask(mask, window, size)
    red = seen[..., 0] > seen[..., 2]
    assert covered.sum() > 100
    assert (red != covered).mean() < 0.02
    inner = view_mask(disc(100, 150, 37, 60, 16), window, size)
    assert (seen[inner] == (230, 20, 20)).all()
    assert (seen[view_mask(1 - disc(100, 150, 37, 60, 26), window, size)] == (20, 20, 230)).all()
    columns = np.flatnonzero(covered.any(0))
    centre = (59.5 - 11) * size[1] / 120
    assert columns.mean() == pytest.approx(size[1] - 1 - centre if flip else centre, abs=1)


# Colours


def test_colours_by_hand() -> None:
    frames = np.array([[[[100, 100, 100]]], [[[50, 50, 50]]]], np.uint8)
    assert recolour(frames, Colour(1.2, 1, 1, 0))[:, 0, 0, 0].tolist() == [120, 60]
    assert recolour(frames, Colour(1, 0.4, 1, 0))[:, 0, 0, 0].tolist() == [85, 65]  # mean of the clip: 75
    assert recolour(frames, Colour(4, 1, 1, 0))[:, 0, 0, 0].tolist() == [255, 200]
    assert recolour(frames, Colour(1, 1, 0.3, 0)).tolist() == frames.tolist()
    red = np.array([[[[200, 0, 0]]]], np.uint8)
    assert recolour(red, Colour(1, 1, 0.5, 0)).ravel().tolist() == [130, 30, 30]  # half way to a grey of 59.8
    assert recolour(red, Colour(1, 1, 1, 0)) is red
    assert recolour(red, Colour(1, 1, 1, 1 / 3)).ravel().tolist() == [0, 200, 0]
    assert recolour(red, Colour(1, 1, 1, -1 / 3)).ravel().tolist() == [0, 0, 200]
    assert recolour(red, Colour(1, 1, 1, 1 / 6)).ravel().tolist() == [133, 133, 0]  # -66.7 is cut off
    assert recolour(frames, Colour(1, 1, 1, 0.2)).tolist() == frames.tolist()  # greys


def test_equal_pixels_stay_equal_over_the_frames() -> None:
    frames = rng().integers(0, 255, (4, 8, 8, 3)).astype(np.uint8)
    frames[:, 2, 3] = (10, 120, 200)
    changed = recolour(frames, Colour(0.8, 1.3, 1.2, 0))
    assert len(np.unique(changed[:, 2, 3], axis=0)) == 1
    assert (changed[0, 2, 3] != (10, 120, 200)).any()


def test_factors_stay_in_their_ranges() -> None:
    config = AugmentationConfig(brightness=0.1, contrast=0.2, saturation=0.4, hue=0.5)
    factors = np.array([draw_colour(config, rng(seed)) for seed in range(300)]) + np.array([0, 0, 0, 1])
    for column, reach in zip(factors.T, (0.1, 0.2, 0.4, 0.5), strict=True):
        assert 1 - reach <= column.min() < 1 - 0.9 * reach
        assert 1 + 0.9 * reach < column.max() <= 1 + reach
    assert tuple(draw_colour(AugmentationConfig(), rng())) == (1, 1, 1, 0)


# Objects


def test_tiny_remains_are_absent() -> None:
    assert MIN_VISIBLE == SHAPES_MIN_VISIBLE == 12
    masks = np.zeros((3, 2, 8, 8), bool)
    masks[0, 0, 0, :4] = masks[0, 1, :3, :4] = True  # 4 and 12 pixels
    masks[1, :, 0, :] = masks[1, :, 1, :3] = True  # 11 pixels
    masks[2, 0] = True
    visible, kept = drop_invisible(masks)
    assert kept.tolist() == [0, 2]
    assert visible.sum((2, 3)).tolist() == [[0, 12], [64, 0]]
    assert np.array_equal(visible[0, 1], masks[0, 1])
    assert drop_invisible(masks[:0])[0].shape == (0, 2, 8, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_crop": 0.0}, r"min_crop: expected above 0, to 1 \(no random crop\), got 0"),
        ({"min_crop": 1.1}, "min_crop: .* got 1.1"),
        ({"flip": -0.1}, "flip: expected a probability, 0 to 1, got -0.1"),
        ({"flip": 2.0}, "flip: .* got 2"),
        ({"brightness": 1.0}, r"brightness: expected 0 \(no change\) to below 1, got 1"),
        ({"contrast": -0.5}, "contrast: .* got -0.5"),
        ({"saturation": 1.5}, "saturation: .* got 1.5"),
        ({"hue": 0.6}, r"hue: expected 0 \(no change\) to 0.5 \(any hue\), got 0.6"),
    ],
)
def test_settings_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentationConfig(**change)
