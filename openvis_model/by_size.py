"""A memory for what depends on the size of frames or feature maps alone."""

import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Size = tuple[int, int]
Made = TypeVar("Made")

SIZES = 16
"""Values that are remembered; a run over an archive meets few sizes, one for each shape of its videos."""


class BySize:
    """Remembers values that depend on sizes, a device and a dtype.

    Each thread has its own: on a GPU, it may have a stream of its own, and a value is there only for those that wait.
    """

    def __init__(self) -> None:
        self.made: dict[object, object] = {}

    def __call__(self, sizes: tuple[Size, ...], like: Tensor, make: Callable[[], Made]) -> Made:
        """Returns what `make` returned for the same sizes, device and dtype, or calls it; always in full precision."""
        with torch.autocast(like.device.type, enabled=False):
            if torch.compiler.is_compiling():  # what a graph remembers would have it compiled again
                return make()
            key = (threading.get_ident(), sizes, like.device, like.dtype)
            made: Made | None = self.made.get(key)  # type: ignore[assignment] # of the key's kind
            if made is None:
                if len(self.made) >= SIZES:
                    self.made.clear()
                self.made[key] = made = make()
        return made
