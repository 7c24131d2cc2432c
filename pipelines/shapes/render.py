"""Shapes, the project's miniature benchmark: rendered clips of moving objects such as a "red striped star".

Masks, tracks and categories are exact, since the scene is known. Split, seed and index alone determine a clip, bit for
bit, on every machine.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8, UInt16

from pipelines.shapes.categories import CATEGORIES, PAINTS
from pipelines.shapes.outlines import EXTENT, MAP_SIDE, REACH, distance_map
from pipelines.shapes.scenes import SPLITS, Actor, Camera, SceneConfig, Split, invent_camera, invent_scene, sine

MIN_VISIBLE = 12
"""Objects with a smaller visible area, pixels, count as absent: nobody could recognise them."""

_PERIOD = 0.55  # of stripes, dots and checks, in object coordinates
_DOT = 0.3  # radius of a dot, in periods
_EXPOSURES = -0.5, -0.25, 0.25, 0.5  # before and after a blurred frame's own moment, in shutter times
_BORDER = 0.14  # width of a border, in object coordinates


class _Pose(NamedTuple):
    """Where an object is in the frame at one moment; units as in `Actor`."""

    x: float
    y: float
    size: float
    tilt: float


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A rendered video. All of its O objects are visible in at least one frame.

    Attributes:
        frames: RGB.
        masks: visible pixels of each object; no pixel is in two masks. Empty where the object is absent: out of the
            frame, hidden, or visible in less than `MIN_VISIBLE` pixels.
        categories: of the objects, ids from 0.
    """

    frames: UInt8[np.ndarray, "T H W 3"]
    masks: Bool[np.ndarray, "O T H W"]
    categories: tuple[int, ...]


def render(config: SceneConfig, split: Split, seed: int, index: int) -> Clip:
    """Renders clip number `index` of a split.

    Raises:
        ValueError: unknown split, or a negative seed or index.
    """
    if split not in SPLITS:
        raise ValueError(f"split: unknown value {split!r}; choose one of {', '.join(SPLITS)}")
    if min(seed, index) < 0:
        raise ValueError(f"seed and index: must not be negative, got {seed} and {index}; count from 0")
    key = np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), index))
    rng = np.random.Generator(np.random.PCG64(key))
    whole = replace(config, frames=config.every * (config.frames - 1) + 1)
    actors = invent_scene(whole, split, rng)
    camera = invent_camera(whole, split, rng)
    border = 2 * camera.reach
    return draw(_background(config.height + border, config.width + border, rng), actors, camera, every=config.every)


def draw(
    background: Float32[np.ndarray, "h w 3"], actors: list[Actor], camera: Camera | None = None, *, every: int = 1
) -> Clip:
    """Renders a scene with anti-aliasing.

    Args:
        background: RGB, 0 to 255, the same in all frames; larger than the frame by the camera's reach on all sides.
        actors: from the hindmost to the foremost; at least one.
        camera: moves over background and actors; None stands still and takes sharp frames.
        every: one of so many frames is drawn.
    """
    camera = camera or Camera.still(len(actors[0].x))
    height, width = (side - 2 * camera.reach for side in background.shape[:2])
    times = range(0, len(camera.x), every)
    frames = np.empty((len(times), height, width, 3), dtype=np.uint8)
    owner = np.zeros(frames.shape[:3], dtype=np.uint16)  # of each pixel: number of the foremost object, from 1
    for frame, time in enumerate(times):
        sharp = _expose(background, actors, camera, float(time), owner[frame])
        others = _blur(time, len(camera.x), camera.shutter)
        light = sum((_expose(background, actors, camera, moment, owner[frame].copy()) for moment in others), sharp)
        frames[frame] = np.rint(light / np.float32(1 + len(others)))

    masks = owner == np.arange(1, len(actors) + 1, dtype=np.uint16)[:, None, None, None]
    masks &= masks.sum((2, 3), keepdims=True) >= MIN_VISIBLE
    seen = masks.any((1, 2, 3))
    categories = tuple(actor.category for actor, is_seen in zip(actors, seen, strict=True) if is_seen)
    return Clip(frames=frames, masks=masks[seen], categories=categories)


def _blur(time: int, frames: int, shutter: float) -> list[float]:
    """Returns the other moments at which a frame is exposed, evenly around its own, in frames."""
    if not shutter:
        return []
    return [min(max(time + shutter * offset, 0.0), frames - 1.0) for offset in _EXPOSURES]


def _expose(
    background: Float32[np.ndarray, "h w 3"],
    actors: list[Actor],
    camera: Camera,
    moment: float,
    owner: UInt16[np.ndarray, "H W"],
) -> Float32[np.ndarray, "H W 3"]:
    """Paints the scene at one moment, and writes to `owner` whose each pixel is."""
    x, y = _at(camera.x, moment), _at(camera.y, moment)
    canvas = _crop(background, camera.reach + y, camera.reach + x, owner.shape)
    for number, actor in enumerate(actors, start=1):
        size, tilt = _at(actor.size, moment), _at(actor.tilt, moment)
        _paint(canvas, owner, actor, _Pose(_at(actor.x, moment) - x, _at(actor.y, moment) - y, size, tilt), number)
    return canvas


def _at(values: Float64[np.ndarray, "T"], moment: float) -> float:
    """Interpolates between frames."""
    before = int(moment)
    share = moment - before
    return float(values[before] if not share else values[before] + share * (values[before + 1] - values[before]))


def _crop(
    background: Float32[np.ndarray, "h w 3"], top: float, left: float, shape: tuple[int, int]
) -> Float32[np.ndarray, "H W 3"]:
    """Returns a copy of a part of the background, interpolated between its pixels."""
    for axis, (start, length) in enumerate(zip((top, left), shape, strict=True)):
        first = int(start)
        share = np.float32(start - first)
        low = background.take(range(first, first + length), axis)
        if share:
            low += share * (background.take(range(first + 1, first + 1 + length), axis) - low)
        background = low
    return background


def _paint(
    canvas: Float32[np.ndarray, "H W 3"], owner: UInt16[np.ndarray, "H W"], actor: Actor, pose: _Pose, number: int
) -> None:
    """Paints one object in a pose."""
    size = pose.size
    rows = _span(pose.y, size * REACH + 1, canvas.shape[0])
    columns = _span(pose.x, size * REACH + 1, canvas.shape[1])
    dy = (np.arange(rows.start, rows.stop) + (0.5 - pose.y))[:, None] / size
    dx = (np.arange(columns.start, columns.stop) + (0.5 - pose.x)) / size
    if not (dx.size and dy.size):
        return
    tilt = np.array([pose.tilt])
    sin, cos = sine(tilt), sine(tilt + 0.25)
    x, y = (dx * cos + dy * sin).astype(np.float32), (dy * cos - dx * sin).astype(np.float32)

    category = CATEGORIES[actor.category]
    distance = _sample(distance_map(category.shape), x, y)
    cover = np.clip(0.5 - distance * size, 0, 1)[..., None]
    accent = np.clip(0.5 + _accent(category.texture, x, y, distance) * size, 0, 1)[..., None]
    main, other = (np.array(colour, dtype=np.float32) * actor.light for colour in PAINTS[category.colour])
    area = canvas[rows, columns]
    area += cover * (main + accent * (other - main) - area)
    owner[rows, columns][distance < 0] = number


def _span(centre: float, reach: float, limit: int) -> slice:
    """Returns the pixels of one axis within `reach` of the centre."""
    return slice(max(0, int(np.floor(centre - reach))), max(0, min(limit, int(np.ceil(centre + reach)))))


def _sample(
    samples: Float32[np.ndarray, "64 64"], x: Float32[np.ndarray, "h w"], y: Float32[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w"]:
    """Samples distances at object coordinates, bilinearly."""
    step = (MAP_SIDE - 1) / (2 * EXTENT)
    column, row = (np.clip((axis + EXTENT) * step, 0, MAP_SIDE - 1.001) for axis in (x, y))
    left, top = column.astype(np.intp), row.astype(np.intp)
    right_share, bottom_share = column - left.astype(np.float32), row - top.astype(np.float32)
    flat, corner = samples.ravel(), top * MAP_SIDE + left
    upper, lower = (flat[at] + right_share * (flat[at + 1] - flat[at]) for at in (corner, corner + MAP_SIDE))
    distances: np.ndarray = upper + bottom_share * (lower - upper)
    return distances


def _accent(
    texture: str, x: Float32[np.ndarray, "h w"], y: Float32[np.ndarray, "h w"], distance: Float32[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w"]:
    """Returns how deep points lie in the texture's accent, in object coordinates; negative outside."""
    depth: np.ndarray
    match texture:
        case "plain":
            depth = np.full_like(x, -np.inf)
        case "bordered":
            depth = distance + _BORDER
        case "striped":
            depth = _wave((x + y) * (0.7071 / _PERIOD)) * _PERIOD
        case "checkered":
            a, b = _wave(x / _PERIOD), _wave(y / _PERIOD)
            depth = np.copysign(np.minimum(np.abs(a), np.abs(b)), a * b) * _PERIOD
        case "dotted":  # in rows, every other of them shifted by half a dot
            row = y / _PERIOD + 0.5
            line = np.floor(row)
            across = x / _PERIOD + 0.5 * line
            a, b = across - np.floor(across) - 0.5, row - line - 0.5
            depth = (_DOT - np.sqrt(a * a + b * b)) * _PERIOD
        case _:
            raise AssertionError(texture)
    return depth


def _wave(phase: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Returns a triangle wave between -1/4 and 1/4 with a period and slopes of 1."""
    wave: np.ndarray = np.abs(phase - np.floor(phase) - 0.5) - 0.25
    return wave


def _background(height: int, width: int, rng: np.random.Generator) -> Float32[np.ndarray, "H W 3"]:
    """Paints a greyish gradient with clouds and grain: no colour, edge or texture that an object could have."""
    ends = 80 + 70 * rng.random((2, 1)) + 30 * (rng.random((2, 3)) - 0.5)
    slope_x, slope_y = rng.random(2) - 0.5
    ramp = 0.5 + slope_x * (np.arange(width) / width - 0.5) + slope_y * (np.arange(height) / height - 0.5)[:, None]
    grey = (rng.random((height, width)) - 0.5) * (16 * rng.random())
    for cells in (3, 7, 15):
        grey += (_clouds(height, width, cells, rng) - 0.5) * (40 * rng.random())
    coloured = ends[0] + ramp[..., None] * (ends[1] - ends[0]) + grey[..., None]
    background: np.ndarray = np.clip(coloured, 40, 190).astype(np.float32)
    return background


def _clouds(height: int, width: int, cells: int, rng: np.random.Generator) -> Float64[np.ndarray, "H W"]:
    """Draws random values from 0 to 1 at `cells` places along each axis and interpolates them smoothly."""
    values = rng.random((cells + 1, cells + 1))
    for axis, length in enumerate((height, width)):
        place = (np.arange(length) + 0.5) * cells / length
        cell = np.floor(place).astype(np.intp)
        share = place - cell
        share = (share * share * (3 - 2 * share)).reshape(-1, *[1] * (1 - axis))
        low, high = values.take(cell, axis), values.take(cell + 1, axis)
        values = low + share * (high - low)
    return values
