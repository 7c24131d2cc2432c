"""Frames in the forms that callers have them, cut into batches for the model."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from openvis_model.frames import check_frames

Image = np.ndarray | Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """Consecutive frames of a video with what their pixels cannot say; for frames that were skipped or resized.

    Attributes:
        pixels: RGB, 0 to 255.
        index: index of each frame in its video, ascending; None continues from the frame before.
        size: height and width of the video's frames, pixels, which masks and boxes refer to; None is the size of
            `pixels`.
    """

    pixels: UInt8[np.ndarray, "T h w 3"] | UInt8[Tensor, "T h w 3"]
    index: Int64[np.ndarray, " T"] | None = None
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.pixels)


VideoSource = Image | Frames | Iterable[Image | Frames]
"""A video: uint8 [T, H, W, 3], or an iterable of frames [H, W, 3], batches [T, H, W, 3] or `Frames`."""


def batches(source: VideoSource, size: int) -> Iterator[Frames]:
    """Returns an iterator over checked batches of at most `size` frames.

    Single frames are collected until there are `size` of them. Longer batches are cut; shorter ones stay as they are.

    Raises:
        ValueError: at once or while iterating, for frames that are not uint8 arrays or tensors of these shapes.
    """
    if isinstance(source, str | PathLike):
        raise ValueError(f"frames: expected pixels, got the path {str(source)!r}; decode the file to RGB frames first")
    if isinstance(source, Frames | np.ndarray | Tensor):
        source = (source if _is_single(source) else _checked(source),)
    elif not isinstance(source, Iterable):
        raise ValueError(f"frames: expected an array or an iterable of arrays, got {type(source).__name__}")
    return _batches(source, size)


def _batches(source: Iterable[Any], size: int) -> Iterator[Frames]:
    single: list[Tensor] = []  # frames that wait for their batch to be full
    for item in source:
        if _is_single(item):
            image = _tensor(item)
            if single and image.shape != single[0].shape:
                yield _stacked(single)
            single.append(image.clone())  # cameras and decoders may write the next one to the same memory
            if len(single) == size:
                yield _stacked(single)
            continue
        if single:
            yield _stacked(single)
        frames = _checked(item)
        for start in range(0, len(frames), size):
            part = slice(start, start + size)
            index = None if frames.index is None else frames.index[part]
            yield Frames(pixels=frames.pixels[part], index=index, size=frames.size)
    if single:
        yield _stacked(single)


def _stacked(single: list[Tensor]) -> Frames:
    """One batch of the collected frames, which are taken out of the list."""
    pixels = torch.stack(single)
    single.clear()
    return _checked(pixels)


def _checked(item: Any) -> Frames:
    frames = item if isinstance(item, Frames) else Frames(pixels=item)
    pixels = _tensor(frames.pixels)
    check_frames(pixels)
    if frames.index is not None and np.shape(frames.index) != (len(pixels),):
        raise ValueError(f"frames.index: expected {len(pixels)} indices, got shape {np.shape(frames.index)}")
    return Frames(pixels=pixels, index=frames.index, size=frames.size)


def _tensor(image: Any) -> Tensor:
    if isinstance(image, np.ndarray):
        # torch takes neither negative strides, as after [..., ::-1], nor read-only memory.
        return torch.from_numpy(np.require(image, requirements=["C", "W"]))
    if not isinstance(image, Tensor):
        raise ValueError(f"frames: expected numpy arrays or torch tensors, got {type(image).__name__}; convert them")
    return image


def _is_single(item: object) -> bool:
    return isinstance(item, np.ndarray | Tensor) and item.ndim == 3
