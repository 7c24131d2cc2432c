"""Values as tensors: torch's processes share the memory of a tensor, where they would copy anything else.

Layout: the number of pieces and the length of each, int64; the pickled value; its arrays. Pieces are aligned.
"""

import pickle
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

_ALIGNMENT = 64  # bytes; a cache line, and more than any element of an array needs


def pack(value: object) -> UInt8[Tensor, "n"]:
    """Pickles a value, with the contents of its arrays beside the pickle instead of in it."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    pieces = [np.frombuffer(piece, np.uint8) for piece in (memoryview(pickled), *(buffer.raw() for buffer in buffers))]
    header = np.array([len(pieces), *map(len, pieces)], np.int64)
    bounds = _bounds(header)
    packed = torch.empty(int(bounds[-1]), dtype=torch.uint8)
    array = packed.numpy()
    array[: header.nbytes] = header.view(np.uint8)
    for piece, start in zip(pieces, bounds, strict=False):
        array[start : start + len(piece)] = piece
    return packed


def unpack(packed: UInt8[Tensor, "n"]) -> Any:
    """Restores a value; its arrays lie in the memory of the tensor."""
    array = packed.numpy()
    count = int(array[:8].view(np.int64)[0])
    header = array[: 8 * (count + 1)].view(np.int64)
    memory = array.data
    pieces = [memory[start : start + size] for start, size in zip(_bounds(header), header[1:], strict=False)]
    return pickle.loads(pieces[0], buffers=pieces[1:])  # noqa: S301 - from our own processes


def _bounds(header: np.ndarray) -> list[int]:
    """Where each piece starts, and the end of the last one."""
    sizes = np.array([header.nbytes, *header[1:]], np.int64)
    bounds: list[int] = (-(-sizes // _ALIGNMENT) * _ALIGNMENT).cumsum().tolist()
    return bounds
