"""Reads state dicts from files in the forms that they are published in, without running any code in them."""

import pickle
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import MAGIC_NUMBER

from openvis_model.weights.restricted_pickle import ArrayUnpickler, RefusedError, StoredArray
from openvis_model.weights.torch_archive import Module, TorchArchive

_LEGACY_START = pickle.dumps(MAGIC_NUMBER, protocol=2)
"""First bytes of the files that `torch.save` wrote before version 1.6, which are no archives."""


def read_state(path: Path, entry: str) -> dict[str, Tensor]:
    """Reads a state dict: safetensors, a file of `torch.save`, a TorchScript program, or a pickle of NumPy's arrays.

    What a checkpoint holds beside its state dict is dropped; from an archive, its tensors are not even read. Time and
    memory are bounded by the file's size, whatever is in it.

    Args:
        path: the file.
        entry: name under which a checkpoint holds its state dict; a file may also hold the state dict alone.

    Raises:
        ValueError: for a file that is missing, damaged or without weights, one that torch wrote before version 1.6, or
            one that needs any other class or function; names it.
    """
    if not path.is_file():
        raise ValueError(f"{path} cannot be read: there is no such file")
    try:
        return _read(path, entry)
    except _NoWeightsError as error:
        raise ValueError(
            f"{path} holds {error}; save its state dict alone, with a newer torch or safetensors"
        ) from None
    except RefusedError as refused:
        raise ValueError(
            f"{path} is refused, and nothing in it was run: it needs {refused}; checkpoints need only arrays of "
            "numbers. If you trust its source, save its state dict as safetensors"
        ) from None
    except Exception as error:  # garbage makes an unpickler raise anything
        raise ValueError(f"{path} cannot be read ({error!r}); is its download complete?") from None


class _NoWeightsError(Exception):
    """Says what a whole file holds instead of weights."""


def _read(path: Path, entry: str) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    with path.open("rb") as file:
        start = file.read(len(_LEGACY_START))
        file.seek(0)
        if start == _LEGACY_START:
            raise _NoWeightsError("the format of torch before version 1.6")
        content = TorchArchive(file).content() if start.startswith(b"PK\3\4") else ArrayUnpickler(file).load()
        return _tensors(content, entry, path.stat().st_size)


def _tensors(content: Any, entry: str, file_size: int) -> dict[str, Tensor]:
    if isinstance(content, Module):
        content = content.arrays()
    weights = content.get(entry, content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise _NoWeightsError(f"no weights: expected names and arrays, or {{{entry!r}: names and arrays}}")
    if strays := sorted(str(name) for name, value in weights.items() if not isinstance(value, StoredArray | Tensor)):
        raise _NoWeightsError(f"weights that are not arrays: {', '.join(strays)}")
    # Layers may share an array, as CLIP's share their mask.
    if sum(array.size for array in weights.values() if isinstance(array, StoredArray)) > 2 * file_size:
        raise RefusedError("far more memory than the file has bytes, for arrays that share their content")
    return {str(name): array if isinstance(array, Tensor) else array.build() for name, array in weights.items()}
