"""Reads the zip archives that `torch.save` and TorchScript write, without running any code in them.

An archive is a folder of stored entries: `data.pkl` says which tensors there are and where, `data/KEY` are their
numbers. A TorchScript program has modules in `data.pkl`, whose attributes are tensors and modules; its code lies in
other entries, which are never opened.
"""

import math
from collections.abc import Iterator
from io import SEEK_END, BufferedIOBase, BytesIO
from typing import Any, ClassVar
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor

from openvis_model.weights.restricted_pickle import ArrayUnpickler, RefusedError, StoredArray, shown

_LONGEST_NAME = 1000


class Module:
    """Stands in for every class of a TorchScript program."""

    attributes: Any = None

    def __setstate__(self, state: Any) -> None:
        self.attributes = state

    def arrays(self) -> dict[str, StoredArray]:
        """Returns the arrays of the module and of those in it, as a state dict names them.

        Raises:
            RefusedError: for a module that is in several places, which would take little of a file and endless time.
        """
        return dict(self._named(prefix="", seen=set()))

    def _named(self, *, prefix: str, seen: set[int]) -> Iterator[tuple[str, StoredArray]]:
        if id(self) in seen or not isinstance(self.attributes, dict):
            raise RefusedError("a module in several places, or without attributes")
        if len(prefix) > _LONGEST_NAME:
            raise RefusedError(f"names of more than {_LONGEST_NAME} characters")
        seen.add(id(self))
        for name, value in self.attributes.items():
            if isinstance(value, Module):
                yield from value._named(prefix=f"{prefix}{name}.", seen=seen)
            elif isinstance(value, StoredArray):
                yield f"{prefix}{name}", value


class TorchArchive:
    """The entries of an archive.

    Raises:
        BadZipFile: for a damaged archive, or one of something else.
        RefusedError: for numbers in another byte order.
    """

    def __init__(self, file: BufferedIOBase) -> None:
        self._zip = ZipFile(file)
        self._unread = file.seek(0, SEEK_END)
        roots = [name.removesuffix("data.pkl") for name in self._zip.namelist() if name.endswith("/data.pkl")]
        if not roots:
            raise BadZipFile("no data.pkl in the archive")
        self._root = min(roots, key=len)
        self._storages: dict[str, Tensor] = {}
        if f"{self._root}byteorder" in self._zip.namelist() and self._read("byteorder") != b"little":
            raise RefusedError("numbers in another byte order than little")

    def content(self) -> Any:
        """Returns what was saved: plain containers, `Module`s and `StoredArray`s."""
        return _TensorUnpickler(BytesIO(self._read("data.pkl")), self).load()

    def storage(self, key: str, number_type: torch.dtype) -> Tensor:
        """Returns the numbers of an entry, in one dimension; they are read once."""
        if key not in self._storages:
            self._storages[key] = torch.frombuffer(bytearray(self._read(f"data/{key}")), dtype=torch.uint8)
        return self._storages[key].view(number_type)

    def _read(self, name: str) -> bytes:
        entry = self._zip.getinfo(self._root + name)
        if entry.compress_type != ZIP_STORED:
            raise RefusedError(f"the compressed entry {name!r}")
        self._unread -= entry.file_size
        if self._unread < 0:
            raise RefusedError("entries that overlap")
        return self._zip.read(entry)


class _TorchArray(StoredArray):
    """Stands in for a tensor: a part of a storage."""

    def __init__(self, storage: "_Storage", offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self._storage, self._place = storage, (shape, strides, offset)

    @property
    def size(self) -> int:
        return math.prod(self._place[0]) * self._storage.number_type.itemsize

    def build(self) -> Tensor:
        if not self.size:
            return torch.empty(self._place[0], dtype=self._storage.number_type)
        storage = self._storage.archive.storage(self._storage.key, self._storage.number_type)
        return storage.as_strided(*self._place)  # torch refuses what lies outside


class _Storage:
    """Stands in for the storage of a tensor."""

    def __init__(self, archive: TorchArchive, number_type: torch.dtype, key: str) -> None:
        self.archive, self.number_type, self.key = archive, number_type, key


class _StorageType:
    """Stands in for a class such as `torch.FloatStorage`."""

    def __init__(self, number_type: torch.dtype) -> None:
        self.number_type = number_type


_STORAGE_TYPES = {
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
}


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _TorchArray:
    """Stands in for the functions that rebuild a tensor."""
    numbers = (offset, *shape, *strides)
    plain = len(numbers) < 100 and all(type(number) is int and 0 <= number < 2**63 for number in numbers)
    if not isinstance(storage, _Storage) or not plain:
        raise RefusedError(f"a tensor that is not a part of a {shown(storage)}")
    return _TorchArray(storage, offset, tuple(shape), tuple(strides))


def _first(value: Any, *_: Any) -> Any:
    """Stands in for functions that wrap a value: in a parameter, a typed list, a device."""
    return value


class _TensorUnpickler(ArrayUnpickler):
    """Knows torch's tensors too."""

    STAND_INS: ClassVar[dict[tuple[str, str], Any]] = {
        **ArrayUnpickler.STAND_INS,
        **{("torch", name): _StorageType(number_type) for name, number_type in _STORAGE_TYPES.items()},
        ("torch._utils", "_rebuild_tensor"): _tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): _first,
        ("torch", "device"): _first,
        ("torch", "Size"): _first,
        **{("torch", str(each).removeprefix("torch.")): each for each in _STORAGE_TYPES.values()},
        **{
            ("torch.jit._pickle", name): _first
            for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
        },
    }

    def __init__(self, file: BufferedIOBase, archive: TorchArchive) -> None:
        super().__init__(file)
        self._archive = archive

    def find_class(self, module: str, name: str) -> Any:
        """Returns the harmless stand-in for a global, or raises."""
        return Module if module.split(".")[0] == "__torch__" else super().find_class(module, name)

    def persistent_load(self, pid: Any) -> _Storage:
        """Returns the storage that an id such as `("storage", FloatStorage, key, device, numbers)` names."""
        kind, storage_type, key, *_ = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType) or not isinstance(key, str):
            raise RefusedError(f"a storage of type {shown(storage_type)}")
        return _Storage(self._archive, storage_type.number_type, key)
