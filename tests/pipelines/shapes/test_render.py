import hashlib

import numpy as np
import pytest

from pipelines.shapes.categories import BASE, CATEGORIES, COLOURS, PAINTS, TEXTURES, Category
from pipelines.shapes.render import MIN_VISIBLE, Clip, draw, render
from pipelines.shapes.scenes import SPLITS, Actor, Camera, SceneConfig, Split

CONFIG = SceneConfig()
GREY = np.full((96, 128, 3), 120, dtype=np.float32)

# The world is fixed for ever: trained models and published numbers refer to exactly these frames and masks.
DIGESTS: dict[Split, str] = {
    "train": "2f1e017e6bb34bc8",
    "valid": "b6ead90ace41156f",
    "novel": "57ba6ce1871e9536",
    "hard": "41ec32a7fae65cc2",
    "pretrain": "f6f846caf456c1c8",
    "crossing": "d5b299feccc84903",
    "crossing_train": "19e0bfaa19a73575",
}


def thing(name: str, x: list[float], y: float = 48, size: float = 20, tilt: float = 0) -> Actor:
    return Actor(
        category=CATEGORIES.index(Category(*name.split(" "))),
        x=np.array(x, dtype=np.float64),
        y=np.full(len(x), y, dtype=np.float64),
        size=np.full(len(x), size, dtype=np.float64),
        tilt=np.full(len(x), tilt, dtype=np.float64),
    )


def digest(clip: Clip) -> str:
    content = clip.frames.tobytes() + np.packbits(clip.masks).tobytes() + repr(clip.categories).encode()
    return hashlib.sha256(content).hexdigest()[:16]


@pytest.mark.parametrize("split", SPLITS)
def test_clips_are_fixed_for_ever(split: Split) -> None:
    assert digest(render(CONFIG, split, seed=0, index=3)) == DIGESTS[split]


def test_every_name_gives_another_clip() -> None:
    names: list[tuple[Split, int, int]] = [("train", 0, 0), ("valid", 0, 0), ("train", 1, 0), ("train", 0, 1)]
    clips = [render(CONFIG, *name) for name in names]
    assert len({digest(clip) for clip in clips}) == len(names)
    assert [digest(render(CONFIG, *name)) for name in reversed(names)] == [digest(clip) for clip in clips[::-1]]


@pytest.mark.parametrize("split", SPLITS)
def test_clips_are_whole(split: Split) -> None:
    for index in range(8):
        clip = render(CONFIG, split, 0, index)
        assert clip.frames.shape == (24, 96, 128, 3)
        assert clip.frames.dtype == np.uint8
        assert clip.masks.shape == (len(clip.categories), 24, 96, 128)
        assert clip.masks.dtype == np.bool_
        assert clip.masks.sum(0).max() == 1  # no pixel is in two masks
        areas = clip.masks.sum((2, 3))
        assert ((areas == 0) | (areas >= MIN_VISIBLE)).all()
        assert areas.any(1).all()
        if split in ("train", "valid", "crossing_train"):
            assert set(clip.categories) <= set(BASE)


def test_other_formats() -> None:
    clip = render(SceneConfig(frames=3, height=61, width=45), "hard", 0, 0)
    assert clip.frames.shape == (3, 61, 45, 3)


@pytest.mark.parametrize("size", [10, 14.3, 20, 37])
@pytest.mark.parametrize("tilt", [0, 0.05])
def test_circle_has_the_area_of_a_circle(size: float, tilt: float) -> None:
    clip = draw(GREY, [thing("red plain circle", [60, 61.3, 62.7, 65.2], 48.4, size, tilt)])
    area = np.pi * (0.92 * size) ** 2
    np.testing.assert_allclose(clip.masks.sum((2, 3)).mean(), area, rtol=0.01)
    np.testing.assert_allclose(clip.masks.sum((2, 3)), area, rtol=0.02)


def test_squares_cover_the_pixels_they_should() -> None:
    clip = draw(GREY, [thing("red plain square", [64], 48, 20)])  # edges at 48 +- 16.4 and 64 +- 16.4
    expected = np.zeros((96, 128), dtype=bool)
    expected[32:64, 48:80] = True
    assert (clip.masks[0, 0] == expected).all()
    main = np.array(PAINTS["red"].main)
    assert (clip.frames[0][33:63, 49:79] == main).all()
    edge = clip.frames[0, 48, 80]  # covered to 40 %; the distance map is good to a tenth of a pixel
    np.testing.assert_allclose(edge, 120 + 0.4 * (main - 120.0), atol=0.1 * np.abs(main - 120).max())
    assert (clip.frames[0, :, 82:] == 120).all()


def test_tilt_is_clockwise() -> None:
    mask = draw(GREY, [thing("red plain arrow", [64], tilt=0.09)]).masks[0, 0]
    top = np.nonzero(mask)[0].min()
    assert np.nonzero(mask[top])[0].mean() > 70


def test_the_last_object_hides_the_others() -> None:
    back, front = thing("red plain square", [64, 64, 64]), thing("blue plain circle", [30, 64, 64])
    both = draw(GREY, [back, front])
    alone = draw(GREY, [front])
    assert (both.masks[1] == alone.masks[0]).all()
    assert (both.masks[0, 1] == draw(GREY, [back]).masks[0, 1] & ~alone.masks[0, 1]).all()
    assert not (both.masks[0] & both.masks[1]).any()


def test_the_camera_moves_over_objects_and_background() -> None:
    ramp = np.broadcast_to(np.arange(128 + 6, dtype=np.float32)[:, None] + 40, (96 + 6, 134, 3))
    camera = Camera(x=np.array([0, 3.0, -3.0]), y=np.zeros(3), reach=3)
    clip = draw(ramp, [thing("red plain square", [64, 64, 64], 48, 20)], camera)  # edges at 64 +- 16.4
    assert clip.frames.shape == (3, 96, 128, 3)
    assert clip.frames[:, 0, 0, 0].tolist() == [43, 46, 40]
    left = [np.flatnonzero(mask.any(0))[0] for mask in clip.masks[0]]
    assert left == [48, 45, 51]


def test_a_slow_shutter_smears_what_moves_and_keeps_its_mask() -> None:
    across = [thing("red plain square", [44, 64, 84])]  # 20 pixels a frame
    sharp = draw(GREY, across)
    blurred = draw(GREY, across, Camera(x=np.zeros(3), y=np.zeros(3), shutter=0.5))
    assert (blurred.masks == sharp.masks).all()
    row = blurred.frames[1, 48, :, 2].astype(int)  # blue: 120 of the grey, 30 of the red
    # The left edge is at 42.6, 45.1, 47.6, 50.1 and 52.6: before pixel 48 three times out of five.
    assert row[[41, 48, 54]].tolist() == pytest.approx([120, 66, 30], abs=2)
    still = [thing("red plain square", [64, 64, 64])]
    camera = Camera(x=np.zeros(3), y=np.zeros(3), shutter=0.5)
    assert (draw(GREY, still, camera).frames == draw(GREY, still).frames).all()


def test_dropped_frames_are_those_of_the_whole_scene() -> None:
    whole = render(SceneConfig(frames=9), "crossing", 5, 2)
    part = render(SceneConfig(frames=3, every=4), "crossing", 5, 2)
    assert (part.frames == whole.frames[::4]).all()
    kept = whole.masks[:, ::4]
    assert (part.masks == kept[kept.any((1, 2, 3))]).all()


def test_holes_show_what_is_behind() -> None:
    clip = draw(GREY, [thing("red plain circle", [64], size=8), thing("blue plain ring", [64], size=30)])
    assert (clip.masks[0] == draw(GREY, [thing("red plain circle", [64], size=8)]).masks[0]).all()


def test_slivers_count_as_absent() -> None:
    x = [-20.0, -15.5, -13.5, 10.0, 300.0]
    areas = draw(GREY, [thing("red plain square", x)]).masks.sum((2, 3))[0]
    # The right edge lies at x + 16.4, which leaves so many columns of 32 pixels: 0, 1, 3, 26, 0.
    assert areas.tolist() == [0, 32, 96, 26 * 32, 0]
    sliver = draw(GREY, [thing("red plain square", [-15.9, 64], y=-10)])
    assert sliver.masks.sum((2, 3)).tolist() == [[0, 32 * 6]]
    assert (sliver.frames[0, 0, 0] != 120).any()  # drawn, but nobody's


def test_objects_that_are_never_seen_are_left_out() -> None:
    hidden, front = thing("red plain circle", [64], size=8), thing("blue plain square", [64], size=30)
    clip = draw(GREY, [hidden, front, thing("green plain square", [-90])])
    assert [CATEGORIES[category].name for category in clip.categories] == ["blue plain square"]
    assert len(clip.masks) == 1


def test_colours_and_textures_differ_in_pixels_while_masks_do_not() -> None:
    looks = [
        draw(GREY, [thing(f"{colour} {texture} star", [64], size=14, tilt=0.04)])
        for colour in COLOURS
        for texture in TEXTURES
    ]
    for number, a in enumerate(looks):
        assert (a.masks == looks[0].masks).all()
        pixels = a.masks[0, 0]
        for b in looks[:number]:
            difference = np.abs(a.frames[0][pixels].astype(int) - b.frames[0][pixels])
            assert difference.mean() > 12
    pixels = looks[0].masks[0, 0]
    assert all(np.abs(look.frames[0][pixels].astype(int) - 120).mean() > 40 for look in looks)


def test_backgrounds_are_muted_and_vary() -> None:
    config = SceneConfig(frames=1, objects=(1, 1))
    clips = [render(config, "novel", 0, index) for index in range(12)]
    grounds = [clip.frames[0][~clip.masks.any((0, 1))].astype(int) for clip in clips]
    for ground in grounds:
        assert np.percentile(np.ptp(ground, axis=1), 75) < 60  # greyish
        assert 40 < ground.mean() < 190
    assert np.ptp([ground.mean() for ground in grounds]) > 20


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(("split", "seed", "index"), [("test", 0, 0), ("train", -1, 0), ("train", 0, -1)])
def test_bad_names(split: Split, seed: int, index: int) -> None:
    with pytest.raises(ValueError, match="split: unknown value 'test'; choose one of train|seed and index"):
        render(CONFIG, split, seed, index)
