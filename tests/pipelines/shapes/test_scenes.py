from typing import Any

import numpy as np
import pytest

from pipelines.shapes.categories import BASE, CATEGORIES, NOVEL_SHOWN
from pipelines.shapes.render import render
from pipelines.shapes.scenes import MAX_TILT, SPLITS, Actor, SceneConfig, Split, invent_camera, invent_scene, sine

CONFIG = SceneConfig()
EASY = ("train", "valid", "novel", "pretrain")
CROSSING = ("crossing", "crossing_train")


def scenes(split: Split, count: int = 40, config: SceneConfig = CONFIG) -> list[list[Actor]]:
    return [invent_scene(config, split, np.random.Generator(np.random.PCG64(seed))) for seed in range(count)]


def steps(actor: Actor) -> np.ndarray:
    return np.hypot(np.diff(actor.x), np.diff(actor.y))


def returns(present: np.ndarray) -> int:
    """How often something that was seen is seen again after an absence."""
    return int((np.diff(np.flatnonzero(present)) > 1).sum())


def crossings(scene: list[Actor]) -> int:
    """Pairs whose centres come closer than half an object's width."""
    pairs = [(a, b) for number, a in enumerate(scene) for b in scene[:number]]
    return sum(bool((np.hypot(a.x - b.x, a.y - b.y) < 16).any()) for a, b in pairs)


def test_sine_is_accurate_on_all_of_the_circle() -> None:
    turns = np.linspace(-3, 3, 10001)
    np.testing.assert_allclose(sine(turns), np.sin(2 * np.pi * turns), atol=2e-9)


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_keep_their_limits(split: Split) -> None:
    for scene in scenes(split):
        assert (2 if split in EASY else 4) <= len(scene) <= 6
        for actor in scene:
            assert actor.x.shape == actor.y.shape == actor.size.shape == actor.tilt.shape == (24,)
            assert np.abs(actor.tilt).max() <= MAX_TILT
            largest = 56 if split in CROSSING else 48
            assert largest / 3 < 2 * actor.size.min() < 2 * actor.size.max() < largest
            assert steps(actor).max() <= 12 * np.sqrt(2)  # a bounce at a corner can only shorten a step
            assert np.abs(np.diff(actor.tilt)).max() < 0.02
            assert np.abs(np.diff(np.log(actor.size))).max() < (0.15 if split in CROSSING else 0.05)


def test_splits_show_the_categories_they_may() -> None:
    shown = {split: {actor.category for scene in scenes(split, 200) for actor in scene} for split in SPLITS}
    assert shown["train"] == shown["valid"] == shown["crossing_train"] == set(BASE)
    assert shown["novel"] <= set(NOVEL_SHOWN)
    assert len(shown["novel"]) > 180
    assert shown["hard"] & set(BASE)
    assert shown["hard"] & set(NOVEL_SHOWN)
    assert not shown["train"] & shown["novel"]


def test_hard_scenes_are_fast_and_full_of_crossings_and_look_alikes() -> None:
    easy, hard = scenes("train"), scenes("hard")

    def speed(of: list[list[Actor]]) -> float:
        return float(np.median(np.concatenate([steps(actor) for scene in of for actor in scene])))

    def alike(of: list[list[Actor]]) -> float:
        looks = [[CATEGORIES[actor.category][:2] for actor in scene] for scene in of]
        return float(np.mean([len(scene) - len(set(scene)) for scene in looks]))

    assert speed(hard) > 2 * speed(easy)
    assert np.mean([crossings(scene) for scene in hard]) > 1.3 * np.mean([crossings(scene) for scene in easy])
    assert alike(hard) > 1.5 > alike(easy) > 0.2
    fastest = max(steps(actor).max() for scene in easy for actor in scene)
    assert 9 < fastest < 12.5


def test_crossing_scenes_show_doubles_that_meet_and_stop() -> None:
    pairs = [scene[number : number + 2] for scene in scenes("crossing") for number in range(0, len(scene) - 1, 2)]
    assert all(a.category == b.category for a, b in pairs)
    assert np.mean([crossings(pair) for pair in pairs]) > 0.9
    stops = [bool((steps(actor) == 0).any()) for scene in scenes("crossing") for actor in scene]
    assert 0.3 < np.mean(stops) < 0.7
    assert not any((steps(actor) == 0).any() for scene in scenes("hard") for actor in scene)


def test_only_the_camera_of_crossing_scenes_moves() -> None:
    for split in SPLITS:
        camera = invent_camera(CONFIG, split, np.random.Generator(np.random.PCG64(0)))
        moves = max(np.ptp(camera.x), np.ptp(camera.y))
        assert max(np.abs(camera.x).max(), np.abs(camera.y).max()) <= camera.reach
        if split in CROSSING:
            assert moves > 4
            assert camera.shutter == 0.5
        else:
            assert moves == camera.shutter == camera.reach == 0


def test_objects_of_hard_scenes_come_back_after_real_absences() -> None:
    def rates(split: Split) -> tuple[float, float]:
        tracks = [masks.any((1, 2)) for index in range(25) for masks in render(CONFIG, split, 0, index).masks]
        absences = [np.diff(np.flatnonzero(track)).max(initial=1) - 1 for track in tracks]
        return float(np.mean([returns(track) for track in tracks])), float(np.mean([gap >= 3 for gap in absences]))

    easy, hard = rates("train"), rates("hard")
    assert hard[0] > 0.25 > easy[0] > 0
    assert hard[1] > 0.2 > easy[1] > 0


def test_sizes_and_speeds_grow_with_the_frame() -> None:
    large = SceneConfig(height=192, width=256)
    for small_scene, large_scene in zip(scenes("hard", 5), scenes("hard", 5, large), strict=True):
        for a, b in zip(small_scene, large_scene, strict=True):
            np.testing.assert_allclose(2 * a.x, b.x, atol=1e-6)
            np.testing.assert_allclose(2 * a.size, b.size)


@pytest.mark.parametrize("config", [SceneConfig(frames=1), SceneConfig(frames=2, height=32, width=400, objects=(1, 1))])
@pytest.mark.parametrize("split", SPLITS)
def test_extreme_formats(config: SceneConfig, split: Split) -> None:
    for scene in scenes(split, 20, config):
        assert 1 <= len(scene) <= config.objects[1]
        assert all(np.isfinite(actor.x).all() and len(actor.x) == config.frames for actor in scene)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frames": 0}, "frames: must be at least 1, got 0"),
        ({"height": 31}, "height: must be at least 32, got 31"),
        ({"width": -5}, "width: must be at least 32, got -5"),
        ({"every": 0}, "every: must be at least 1, got 0"),
        ({"fps": 0}, "fps: must be at least 1, got 0"),
        ({"objects": (3, 2)}, r"objects: .* got \(3, 2\)"),
        ({"objects": (0, 2)}, r"objects: .* got \(0, 2\)"),
    ],
)
def test_bad_config(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SceneConfig(**values)
