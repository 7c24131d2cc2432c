"""Finds the cuts of a video while its frames come in: at each cut all tracks end, and a new shot begins.

Two frames belong to different shots if both their structure and their colours differ. Structure is the correlation of
brightness at the best shift, which light does not change, nor a camera that shakes or pans; colours are histograms,
which motion hardly changes. Each alone is a common detector of cuts; its false alarms are not those of the other one.

A decision needs this frame and those before it only, so labelling, which sees frames in batches, and a live stream end
tracks at the same frames. Imports no torch.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from jaxtyping import Float, UInt8

GRID = 32
"""Side of a thumbnail, cells."""

_MAX_STRUCTURE = 0.75
_MAX_COLOURS = 0.68
_MAX_FADED_STRUCTURE = 0.5
_UNIFORM = 0.02  # standard deviation of brightness, in [0, 1], of a frame that shows nothing, such as a black one
_BURNT = 0.3  # share of cells that a flash turns white, or a failing exposure black
_CONTRARY = 0.05  # share of cells that may darken in a flash, or brighten in a failing exposure: what moves meanwhile
_CHANGED = 8  # change of brightness that counts there, of 255
_FLASH_FRAMES = 3

_SAMPLES = 3  # pixels per side of a cell that its mean is taken of, at least
_LEVELS = 8  # of each channel, in histograms
_RANGE = 2.4  # brightness that the histogram of lit colours covers, as a multiple of the mean
_DARK, _BRIGHT = 0.15, 0.85  # mean brightness beyond which all colours fall into the same few bins


@dataclass(frozen=True, eq=False)
class ShotState:
    """What the detection of cuts carries from one frame to the next; picklable.

    Attributes:
        reference: thumbnail of the last frame that shows something; None before the first one.
        flash: frames after it that were taken for a flash.
        blank: whether a frame after it showed nothing.
        look: what is compared of the reference; None computes it again.
    """

    reference: UInt8[np.ndarray, "32 32 3"] | None = None
    flash: int = 0
    blank: bool = False
    look: "_Look | None" = None


Pixels = TypeVar("Pixels")


def sample(frames: Pixels) -> Pixels:
    """Returns the pixels that `thumbnails` looks at, of an array or tensor [B, h, w, 3]: a view."""
    step = max(1, min(frames.shape[1:3]) // (GRID * _SAMPLES))  # type: ignore[attr-defined]
    return frames[:, ::step, ::step]  # type: ignore[index, no-any-return]


def thumbnails(frames: UInt8[np.ndarray, "B h w 3"]) -> UInt8[np.ndarray, "B 32 32 3"]:
    """Returns what `begins_shot` compares: the mean colours of `GRID` × `GRID` cells of each frame."""
    sampled = sample(frames)
    rows, columns = (np.arange(GRID + 1) * side // GRID for side in sampled.shape[1:3])
    # A side of fewer pixels than cells has empty cells; reduceat then takes the next pixel.
    sums = np.add.reduceat(sampled, rows[:-1], axis=1, dtype=np.uint32)
    sums = np.add.reduceat(sums, columns[:-1], axis=2)
    areas = np.outer(np.maximum(np.diff(rows), 1), np.maximum(np.diff(columns), 1))[..., None]
    return (sums // areas).astype(np.uint8)


def begins_shot(state: ShotState, thumbnail: UInt8[np.ndarray, "32 32 3"]) -> tuple[bool, ShotState]:
    """Returns whether the next frame begins another shot than the one before it, and the state after it.

    A frame of one colour belongs to the shot before it, and is compared with nothing: a fade through black or white is
    one cut, where the new scene appears, faint still and without its colours, so that structure decides alone. Up to
    three frames with many more burnt-out cells than before are taken for a flash, unless they come after a frame of one
    colour, or some cells have brightened while others have darkened.

    Args:
        state: of the video; `ShotState()` for a new one.
        thumbnail: of the next frame, from `thumbnails`.
    """
    look = _Look.of(thumbnail)
    if look.spread < _UNIFORM:
        return False, replace(state, blank=True)
    if state.reference is None:
        return False, ShotState(thumbnail, look=look)
    before = state.look or _Look.of(state.reference)
    burns = look.burnt - before.burnt > _BURNT and state.flash < _FLASH_FRAMES
    if burns and not state.blank and _one_way(state.reference, thumbnail):
        return False, replace(state, flash=state.flash + 1)
    structure = _structure(before, look)
    faded = state.blank and structure < _MAX_FADED_STRUCTURE
    cut = faded or (structure < _MAX_STRUCTURE and _colours(before, look) < _MAX_COLOURS)
    return cut, ShotState(thumbnail, look=look)


@dataclass(frozen=True, eq=False)
class _Look:
    """What is compared of a frame.

    Attributes:
        brightness: mean, in [0, 1].
        spread: standard deviation of brightness.
        burnt: share of cells that are white or black.
        spectrum: Fourier transform of brightness with zero mean and unit norm.
        colours: histogram of the colours as they are.
        lit: histogram of the colours divided by the mean brightness.
        negative: as `lit`, of the negative.
    """

    brightness: float
    spread: float
    burnt: float
    spectrum: np.ndarray
    colours: Float[np.ndarray, " bins"]
    lit: Float[np.ndarray, " bins"]
    negative: Float[np.ndarray, " bins"]

    @classmethod
    def of(cls, thumbnail: UInt8[np.ndarray, "32 32 3"]) -> "_Look":
        colours = thumbnail.astype(np.float32) / 255
        grey = colours.mean(-1)
        brightness = float(grey.mean())
        centred = grey - brightness
        norm = float(np.linalg.norm(centred))
        return cls(
            brightness=brightness,
            spread=norm / GRID,
            burnt=float(max((grey > 0.97).mean(), (grey < 0.03).mean())),
            spectrum=np.fft.rfft2(centred / max(norm, 1e-6)),
            colours=_histogram(colours),
            lit=_histogram(colours / max(_RANGE * brightness, 1e-3)),
            negative=_histogram((1 - colours) / max(_RANGE * (1 - brightness), 1e-3)),
        )


def _one_way(one: UInt8[np.ndarray, "32 32 3"], other: UInt8[np.ndarray, "32 32 3"]) -> bool:
    """Returns whether hardly any cells have darkened, or hardly any have brightened."""
    change = other.mean(-1) - one.mean(-1)
    return bool(min((change < -_CHANGED).mean(), (change > _CHANGED).mean()) <= _CONTRARY)


def _histogram(colours: Float[np.ndarray, "32 32 3"]) -> Float[np.ndarray, " bins"]:
    levels = np.minimum((colours * _LEVELS).astype(np.int64), _LEVELS - 1)
    bins = (levels * (_LEVELS**2, _LEVELS, 1)).sum(-1)
    return np.bincount(bins.ravel(), minlength=_LEVELS**3) / GRID**2


def _structure(one: _Look, other: _Look) -> float:
    """Returns the largest correlation of two frames' brightness over all shifts, in [-1, 1]."""
    return float(np.fft.irfft2(one.spectrum * other.spectrum.conj(), s=(GRID, GRID)).max())


def _colours(one: _Look, other: _Look) -> float:
    """Returns how much the colours of two frames have in common, in [0, 1], with or without a change of exposure."""
    darker, brighter = sorted((one.brightness, other.brightness))
    if darker < _DARK:
        return _shared(one.lit, other.lit)
    if brighter > _BRIGHT:
        return _shared(one.negative, other.negative)
    return max(_shared(one.colours, other.colours), _shared(one.lit, other.lit))


def _shared(one: Float[np.ndarray, " bins"], other: Float[np.ndarray, " bins"]) -> float:
    return float(np.minimum(one, other).sum())
