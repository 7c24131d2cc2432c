import pickle

import numpy as np
import pytest
import torch

from openvis_model.shots import GRID, ShotState, begins_shot, sample, thumbnails

HEIGHT, WIDTH = 96, 160


def scene(seed: int, frames: int = 6, *, shift: int = 0) -> np.ndarray:
    """Soft coloured blobs, float [T, 96, 160, 3] in 0 to 255, that move by `shift` pixels a frame."""
    rng = np.random.default_rng(seed)
    ground, spots = rng.uniform(60, 190, 3), rng.uniform(-110, 110, (3, 6, 24))
    smooth = torch.nn.functional.interpolate(torch.from_numpy(spots)[None], (HEIGHT, 4 * WIDTH), mode="bicubic")[0]
    wide = np.clip(smooth.permute(1, 2, 0).numpy() + ground, 0, 255)
    return np.stack([wide[:, i * shift : i * shift + WIDTH] for i in range(frames)])


def cuts(frames: np.ndarray) -> list[int]:
    """Returns the frames that begin a shot."""
    state, found = ShotState(), []
    for index, thumbnail in enumerate(thumbnails(np.clip(frames, 0, 255).astype(np.uint8))):
        cut, state = begins_shot(state, thumbnail)
        if cut:
            found.append(index)
    return found


def test_a_thumbnail_has_the_means_of_cells() -> None:
    frames = np.zeros((2, 64, 96, 3), np.uint8)  # cells of 2 × 3 pixels
    frames[0, :2, :3] = [[[10, 0, 0], [20, 0, 0], [30, 0, 0]], [[40, 0, 0], [50, 0, 0], [63, 6, 255]]]
    frames[1, -1, -1] = 60
    small = thumbnails(frames)
    assert small.shape == (2, GRID, GRID, 3)
    assert small[0, 0, 0].tolist() == [213 // 6, 1, 255 // 6]
    assert small[1, -1, -1].tolist() == [10, 10, 10]
    assert not small[0, 1:].any()


@pytest.mark.parametrize("size", [(32, 32), (20, 50), (97, 131), (384, 672), (1080, 1920)])
def test_thumbnails_of_any_size(size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    small = thumbnails(frames)
    assert np.array_equal(thumbnails(sample(frames)), small)
    assert np.array_equal(thumbnails(sample(torch.from_numpy(frames)).numpy()), small)
    assert np.array_equal(thumbnails(np.full((1, *size, 3), 77, np.uint8)), np.full((1, GRID, GRID, 3), 77))


def test_a_cut_is_found_where_it_is() -> None:
    video = np.concatenate([scene(0, 5), scene(1, 3), scene(2, 4)])
    assert cuts(video) == [5, 8]


def test_a_state_between_two_frames_is_all_that_is_needed() -> None:
    small = thumbnails(np.concatenate([scene(0, 3), scene(1, 3)]).astype(np.uint8))
    state = ShotState()
    found = []
    for thumbnail in small:
        cut, state = begins_shot(pickle.loads(pickle.dumps(state)), thumbnail)
        found.append(cut)
    assert found == [False, False, False, True, False, False]


def test_a_camera_that_pans_or_shakes_makes_no_cut() -> None:
    assert not cuts(scene(0, 20, shift=12))
    rng = np.random.default_rng(0)
    wide = scene(1, 1, shift=0)[0]
    shaken = [np.roll(wide, rng.integers(-15, 16, 2), (0, 1)) for _ in range(20)]
    assert not cuts(np.stack(shaken))


def test_a_change_of_light_makes_no_cut() -> None:
    video = scene(0, 9)
    video[3:6] *= 0.4
    video[6:] = 255 - (255 - video[6:]) * 0.6
    assert not cuts(video)


@pytest.mark.parametrize(("frames", "gain", "offset"), [(1, 3, 120), (3, 3, 120), (2, 0, 255), (2, 0, 0)])
def test_a_flash_makes_no_cut(frames: int, gain: float, offset: float) -> None:
    video = scene(0, 10)
    video[4 : 4 + frames] = video[4 : 4 + frames] * gain + offset
    assert not cuts(video)


def partly(level: int, part: str, frames: int) -> np.ndarray:
    """Another scene, much of which is white or black."""
    shown, ground = scene(1, frames), np.full((frames, HEIGHT, WIDTH, 3), float(level))
    rows, columns = {
        "right": (slice(None), slice(WIDTH // 2, None)),
        "middle": (slice(HEIGHT // 6, -HEIGHT // 6), slice(WIDTH // 6, -WIDTH // 6)),
        "between pillars": (slice(None), slice(WIDTH // 6, -WIDTH // 6)),
    }[part]
    ground[:, rows, columns] = shown[:, rows, columns]
    return ground


BURNT = [(0, "right"), (255, "right"), (255, "middle"), (0, "between pillars")]


@pytest.mark.parametrize(("level", "part"), BURNT)
def test_another_shot_of_much_white_or_black_is_no_flash(level: int, part: str) -> None:
    """A night, a window, a product on white, and a picture between pillars."""
    assert cuts(np.concatenate([scene(0, 4), partly(level, part, 8)])) == [4]


@pytest.mark.parametrize(("level", "part"), BURNT)
def test_shots_of_much_white_or_black_that_take_turns(level: int, part: str) -> None:
    other = partly(level, part, 3)
    assert cuts(np.concatenate([scene(0, 3), other, scene(0, 3), other])) == [3, 6, 9]


@pytest.mark.parametrize(("level", "part"), BURNT)
def test_a_shot_of_much_white_or_black_after_a_black_one_is_no_flash(level: int, part: str) -> None:
    black = np.zeros((3, HEIGHT, WIDTH, 3))
    assert cuts(np.concatenate([scene(0, 4), black, partly(level, part, 4)])) == [7]


def test_white_letters_on_black_after_a_black_frame_are_no_flash() -> None:
    title = np.zeros((4, HEIGHT, WIDTH, 3))
    title[:, 40:56, 30:130] = 255
    assert cuts(np.concatenate([scene(0, 4), title[:1] * 0, title])) == [5]


def test_a_flash_on_what_moves_makes_no_cut() -> None:
    video = scene(0, 10, shift=6)
    video[4:6] = video[4:6] * 3 + 120
    assert not cuts(video)


@pytest.mark.parametrize("level", [0, 255])
def test_a_fade_is_one_cut_where_the_new_scene_appears(level: int) -> None:
    weight = np.linspace(1, 0, 8)[:, None, None, None]
    out, into = level + (scene(0, 8) - level) * weight, level + (scene(1, 8) - level) * weight[::-1]
    (cut,) = cuts(np.concatenate([scene(0, 3), out, into, scene(1, 3)]))
    assert 11 < cut < 19


def test_a_video_that_shows_nothing_has_no_cut() -> None:
    assert not cuts(np.zeros((4, HEIGHT, WIDTH, 3)))
    assert not cuts(np.concatenate([np.zeros((4, HEIGHT, WIDTH, 3)), scene(0, 4)]))
