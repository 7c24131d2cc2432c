"""Invents the scenes of Shapes: the objects and their motion.

Only uniform random numbers, sums, products and roundings occur, which IEEE 754 fixes to the last bit. Operations that
differ between machines are avoided: sine, power, normal deviates, and interpolation, which some processors fuse.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64

from pipelines.shapes.categories import BASE, CATEGORIES, NOVEL_SHOWN
from pipelines.shapes.outlines import REACH

Split = Literal["train", "valid", "novel", "hard", "pretrain", "crossing", "crossing_train"]

MAX_TILT = 0.095
"""Greatest tilt of an object to either side, turns (0.6 rad); beyond it squares become diamonds."""

_SIZES = 0.14, 0.22  # half an object's width, as a share of the frame's shorter side
_PULSE = 0.12  # how far size swings around its mean, as a share of it


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """Format of the clips; their content follows from the split.

    Attributes:
        frames: frames per clip.
        height: of the frames, pixels. Sizes and speeds of objects grow with the frame's shorter side.
        width: of the frames, pixels.
        fps: frames per second of the files; motion per frame does not depend on it.
        every: a clip has one of so many frames of its scene, as if the others had been dropped: 4 makes all motion four
            times as fast.
        objects: fewest and most objects in a scene. Hard and crossing scenes have at least 4, if this allows it.
    """

    frames: int = 24
    height: int = 96
    width: int = 128
    fps: int = 8
    every: int = 1
    objects: tuple[int, int] = (2, 6)

    def __post_init__(self) -> None:
        for name, least in (("frames", 1), ("height", 32), ("width", 32), ("fps", 1), ("every", 1)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name}: must be at least {least}, got {value}; choose a larger value")
        fewest, most = self.objects
        if not 1 <= fewest <= most:
            raise ValueError(
                f"objects: must be (fewest, most) with 1 <= fewest <= most, got {self.objects}; swap or raise them"
            )


@dataclass(frozen=True, kw_only=True)
class Actor:
    """One object through T frames.

    Attributes:
        category: id, from 0.
        x: of its centre, pixels from the frame's left edge; pixel i covers i to i + 1.
        y: of its centre, pixels from the frame's upper edge.
        size: length of one unit of object coordinates, pixels; about half its width.
        tilt: clockwise, turns.
        light: brightness of its colours, 0 to 1.
    """

    category: int
    x: Float64[np.ndarray, "T"]
    y: Float64[np.ndarray, "T"]
    size: Float64[np.ndarray, "T"]
    tilt: Float64[np.ndarray, "T"]
    light: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Camera:
    """The camera through T frames.

    Attributes:
        x: its displacement to the right, pixels.
        y: its displacement downwards, pixels.
        reach: the largest displacement, pixels; the background is larger than the frame by it on all sides.
        shutter: how long it exposes, as a share of the time between frames; 0 gives sharp frames.
    """

    x: Float64[np.ndarray, "T"]
    y: Float64[np.ndarray, "T"]
    reach: int = 0
    shutter: float = 0.0

    @classmethod
    def still(cls, frames: int) -> "Camera":
        """Returns a camera that stands still and takes sharp frames."""
        return cls(x=np.zeros(frames), y=np.zeros(frames))


@dataclass(frozen=True, kw_only=True)
class _Plot:
    """Content of the scenes of a split. Shares are probabilities."""

    categories: tuple[int, ...]
    fewest: int  # objects
    speeds: tuple[float, float]  # pixels per frame, where the frame's shorter side is 96 pixels
    slow: int  # the higher, the more objects move near the lower speed
    meet: float  # share of pairs whose paths cross
    roam: float  # share of objects that may leave the frame
    alike: float  # share of pairs that look alike
    same: float = 0.5  # share of these whose category is the same, too
    pulse: float = _PULSE
    stop: float = 0.0  # share of objects that stand still for a while
    pan: float = 0.0  # reach of the camera, as a share of the frame's shorter side
    shutter: float = 0.0


def _easy(categories: tuple[int, ...]) -> _Plot:
    return _Plot(categories=categories, fewest=2, speeds=(0.5, 10.0), slow=3, meet=0.3, roam=0.4, alike=0.25)


def _crossing(categories: tuple[int, ...]) -> _Plot:
    return _Plot(
        categories=categories,
        fewest=4,
        speeds=(2.0, 8.0),
        slow=1,
        meet=1.0,
        roam=0.5,
        alike=1.0,
        same=1.0,
        pulse=0.3,
        stop=0.5,
        pan=0.15,
        shutter=0.5,
    )


_PLOTS: dict[Split, _Plot] = {
    "train": _easy(BASE),
    "valid": _easy(BASE),
    "novel": _easy(NOVEL_SHOWN),
    "hard": _Plot(
        categories=(*BASE, *NOVEL_SHOWN), fewest=4, speeds=(4.0, 10.0), slow=1, meet=0.75, roam=0.8, alike=0.75
    ),
    "pretrain": _easy(tuple(range(len(CATEGORIES)))),
    "crossing": _crossing((*BASE, *NOVEL_SHOWN)),
    "crossing_train": _crossing(BASE),
}

SPLITS = tuple(_PLOTS)


class _Anchor(NamedTuple):
    """Place of an object at one moment; its path extends from there in both directions of time."""

    frame: int
    x: float
    y: float
    heading: float  # turns, clockwise from the right


def sine(turns: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """Returns the sine of an angle in turns, to 1e-9, the same on every machine."""
    x = turns - np.floor(turns + 0.5)
    x = 2 * np.pi * np.where(np.abs(x) > 0.25, np.where(x > 0, 0.5, -0.5) - x, x)
    square, series = x * x, np.ones_like(x)
    for k in (156, 110, 72, 42, 20, 6):
        series = 1 - series * square / k
    result: np.ndarray = x * series
    return result


def invent_scene(config: SceneConfig, split: Split, rng: np.random.Generator) -> list[Actor]:
    """Invents a scene.

    Objects come in pairs: the two of a pair may look alike, and may meet.

    Returns:
        The objects, from the hindmost to the foremost.
    """
    plot = _PLOTS[split]
    low, high = config.objects
    low = max(low, min(plot.fewest, high))
    categories = _cast(plot, low + _pick(rng, high - low + 1), rng)
    actors = []
    for start in range(0, len(categories), 2):
        pair = categories[start : start + 2]
        meeting = _somewhere(config, rng) if rng.random() < plot.meet and len(pair) == 2 else None
        for category in pair:
            actors.append(_actor(config, plot, category, meeting, rng))
            if meeting:  # the other one comes from about the opposite side
                meeting = meeting._replace(heading=meeting.heading + _between(rng, 0.35, 0.65))
    return actors


def invent_camera(config: SceneConfig, split: Split, rng: np.random.Generator) -> Camera:
    """Invents how the camera moves: not at all, but in crossing scenes."""
    plot = _PLOTS[split]
    if not plot.pan:
        return Camera.still(config.frames)
    reach = plot.pan * min(config.height, config.width)
    frame = np.arange(config.frames, dtype=np.float64)
    x, y = (reach * sine(frame / _between(rng, 16.0, 40.0) + rng.random()) for _ in range(2))
    return Camera(x=x, y=y, reach=int(np.ceil(reach)), shutter=plot.shutter)


def _cast(plot: _Plot, count: int, rng: np.random.Generator) -> list[int]:
    categories: list[int] = []
    for number in range(count):
        options = plot.categories
        if number % 2 and rng.random() < plot.alike:
            like = categories[-1]
            same_look = tuple(c for c in options if CATEGORIES[c][:2] == CATEGORIES[like][:2] and c != like)
            options = same_look if same_look and rng.random() < 1 - plot.same else (like,)
        categories.append(options[_pick(rng, len(options))])
    return categories


def _actor(config: SceneConfig, plot: _Plot, category: int, meeting: _Anchor | None, rng: np.random.Generator) -> Actor:
    short = min(config.height, config.width)
    size = short * _between(rng, *_SIZES)
    slowest, fastest = plot.speeds
    speed = (slowest + (fastest - slowest) * _product(rng.random(), plot.slow)) * short / 96
    # An object leaves and comes back over a few of its widths; slow ones would hardly be visible in the clip.
    roams = rng.random() < plot.roam and speed * config.frames > 6 * size
    margin = size * REACH + speed * _between(rng, 1.0, 3.0) if roams else -size / 2
    anchor = meeting or (_beyond(config, margin, rng) if roams else _somewhere(config, rng))
    x, y = _path(config, plot, anchor, speed, margin, rng)

    frame = np.arange(config.frames, dtype=np.float64)
    pulse = sine(frame / _between(rng, 20.0, 60.0) + rng.random())
    swing = sine(frame / _between(rng, 20.0, 60.0) + rng.random())
    sway = _between(rng, 0.0, MAX_TILT / 2)
    tilt = _between(rng, -1.0, 1.0) * (MAX_TILT - sway) + sway * swing
    size_over_time = size * (1 + _between(rng, 0.0, plot.pulse) * pulse)
    return Actor(category=category, x=x, y=y, size=size_over_time, tilt=tilt, light=_between(rng, 0.88, 1.0))


def _somewhere(config: SceneConfig, rng: np.random.Generator, first: float = 0.25, last: float = 0.75) -> _Anchor:
    """Draws a place away from the border, between two moments given as shares of the clip."""
    frame = int(config.frames * _between(rng, first, last))
    x, y = config.width * _between(rng, 0.2, 0.8), config.height * _between(rng, 0.2, 0.8)
    return _Anchor(frame, x, y, rng.random())


def _beyond(config: SceneConfig, margin: float, rng: np.random.Generator) -> _Anchor:
    """Draws a turning point outside of the frame: the object leaves before it and comes back after it."""
    anchor = _somewhere(config, rng, 0.35, 0.65)
    side, slant = _pick(rng, 4), _between(rng, -0.1, 0.1)
    x = (anchor.x, config.width + margin, anchor.x, -margin)[side]
    y = (-margin, anchor.y, config.height + margin, anchor.y)[side]
    return _Anchor(anchor.frame, x, y, (side + 1) / 4 + slant)


def _path(
    config: SceneConfig, plot: _Plot, anchor: _Anchor, speed: float, margin: float, rng: np.random.Generator
) -> tuple[Float64[np.ndarray, "T"], Float64[np.ndarray, "T"]]:
    """Draws a winding path through the anchor, reflected by walls `margin` pixels beyond the frame's edges."""
    time = np.arange(config.frames, dtype=np.float64) - anchor.frame
    heading = anchor.heading + _between(rng, -0.2, 0.2) * sine(time / _between(rng, 24.0, 72.0))
    pace = speed * (1 + 0.2 * sine(time / _between(rng, 16.0, 48.0) + rng.random()))
    if plot.stop and rng.random() < plot.stop:
        start = int(config.frames * rng.random())
        pace[start : start + 1 + int(config.frames * _between(rng, 0.1, 0.25))] = 0.0
    x, y = np.cumsum(pace * sine(heading + 0.25)), np.cumsum(pace * sine(heading))
    x, y = x - x[anchor.frame] + anchor.x, y - y[anchor.frame] + anchor.y
    return _reflect(x, -margin, config.width + margin), _reflect(y, -margin, config.height + margin)


def _reflect(way: Float64[np.ndarray, "T"], low: float, high: float) -> Float64[np.ndarray, "T"]:
    span = high - low
    share = (way - low) / span
    folded: np.ndarray = 1 - np.abs(1 - (share - 2 * np.floor(share / 2)))
    return low + span * folded


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Replaces `rng.uniform`, which some processors compute with one rounding instead of two."""
    return low + (high - low) * rng.random()


def _pick(rng: np.random.Generator, options: int) -> int:
    return int(rng.random() * options)


def _product(value: float, times: int) -> float:
    """Replaces `value**times`, which depends on the C library."""
    result = value
    for _ in range(times - 1):
        result *= value
    return result
