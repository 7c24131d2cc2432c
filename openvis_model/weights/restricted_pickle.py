"""Reads pickles of arrays without running any code in them.

Only arrays of numbers, plain containers and `OrderedDict` are rebuilt. Each global that a pickle names is replaced by a
harmless stand-in, or refused.
"""

import pickle
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

_MOST_ARGUMENTS = 100


class RefusedError(Exception):
    """Names what a file needs beyond arrays of numbers."""


class StoredArray(ABC):
    """An array of a file. Several may share their content, so each is built when all are known."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes of the array."""

    @abstractmethod
    def build(self) -> Tensor:
        """Returns the array."""


# A hostile file may pass anything to what follows, so the arguments are typed as Any. Nested tuples that share their
# parts take little of a file, and years to be hashed or printed, so neither is done with anything but plain values.
class _NumberType:
    """Stands in for `numpy.dtype`; accepts numbers only, no objects or records."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
            raise RefusedError(f"an array of type {shown(code)}")
        self.type = np.dtype(f"<{code}")

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", "|"):
            raise RefusedError(f"an array of byte order {shown(state[1])}")


class _NumpyArray(StoredArray):
    """Stands in for `numpy.ndarray` and the functions that rebuild one.

    NumPy trusts the pickle: wrong sizes in a type's state make it read out of bounds.
    """

    def __init__(self, *_: Any) -> None:
        self._parts: tuple[Any, ...] = (b"", np.dtype("f4"), (0,), "C")

    def __setstate__(self, state: Any) -> None:
        _, shape, number_type, is_fortran, data = state
        self._parts = self.from_buffer(data, number_type, shape, "F" if is_fortran else "C")._parts

    @classmethod
    def from_buffer(cls, data: Any, number_type: Any, shape: Any, order: Any, *_: Any) -> "_NumpyArray":
        if not isinstance(number_type, _NumberType):
            raise RefusedError(f"an array of type {shown(number_type)}")
        self = cls()
        self._parts = data, number_type.type, shape, order
        return self

    @classmethod
    def scalar(cls, number_type: Any, data: Any) -> "_NumpyArray":
        return cls.from_buffer(data, number_type, (), "C")

    @property
    def size(self) -> int:
        return len(self._parts[0])

    def build(self) -> Tensor:
        data, number_type, shape, order = self._parts
        content = data.encode() if isinstance(data, _Latin1) else data
        array = np.frombuffer(content, number_type).reshape(shape, order=order)
        return torch.from_numpy(array.copy(order="C"))


class _Latin1:
    """Stands in for `_codecs.encode`; other codecs take minutes for little text, as punycode does."""

    def __init__(self, text: Any, encoding: Any) -> None:
        if encoding != "latin1":
            raise RefusedError(f"the codec {shown(encoding)}")
        self._text = text

    def __len__(self) -> int:
        return len(self._text)

    def encode(self) -> bytes:
        """Returns the bytes."""
        return str.encode(self._text, "latin1")


def shown(value: Any) -> str:
    """Returns text as it is, and the type of anything else."""
    return repr(value) if isinstance(value, str) else type(value).__name__


def _check_keys(keys: Iterable[Any]) -> None:
    for key in keys:
        if not isinstance(key, str | bytes | int | float | None):
            raise RefusedError(f"a key that is a {type(key).__name__}")


def _ordered_dict(pairs: Any = ()) -> OrderedDict[Any, Any]:
    """Stands in for `OrderedDict`."""
    items = [(key, value) for key, value in pairs]
    _check_keys(key for key, _ in items)
    if isinstance(pairs, list):
        pairs.clear()  # or one list could be given to many dicts
    return OrderedDict(items)


def _no_bytes() -> bytes:
    """Stands in for `bytes`, which makes as many as it is told to."""
    return b""


def _content(items: Any = ()) -> Any:
    """Stands in for `set`, which would hash the items."""
    return items


def _checking(opcode: bytes, keys: slice) -> dict[int, Callable[[Any], None]]:
    """Returns an opcode's function, after a check of the keys that it takes from the stack."""
    load = pickle._Unpickler.dispatch[opcode[0]]

    def checked(unpickler: Any) -> None:
        _check_keys(unpickler.stack[keys])
        load(unpickler)

    return {opcode[0]: checked}


def _push_bytearray(unpickler: Any) -> None:
    """Reads what the file holds; the usual function first allocates what it claims to hold."""
    length = int.from_bytes(unpickler.read(8), "little")
    unpickler.append(bytearray(unpickler.read(length)))


def _checking_arguments(opcode: bytes) -> dict[int, Callable[[Any], None]]:
    """Returns an opcode's function, after a check that a call has few arguments: one tuple can serve many calls."""
    load = pickle._Unpickler.dispatch[opcode[0]]

    def checked(unpickler: Any) -> None:
        arguments = unpickler.stack[-1]
        if isinstance(arguments, tuple) and len(arguments) > _MOST_ARGUMENTS:
            raise RefusedError(f"a call with {len(arguments)} arguments")
        load(unpickler)

    return {opcode[0]: checked}


def _set_state(unpickler: Any) -> None:
    """Sets the state of a stand-in's instance; anything else that has attributes outlives the file."""
    state = unpickler.stack.pop()
    instance = unpickler.stack[-1]
    if isinstance(instance, OrderedDict):
        return  # its attributes are torch's metadata, which no weight depends on
    if isinstance(instance, type) or not hasattr(instance, "__setstate__"):
        raise RefusedError(f"to set attributes of a {type(instance).__name__}")
    instance.__setstate__(state)


class ArrayUnpickler(pickle._Unpickler):
    """Resolves only the globals that checkpoints need; since NumPy 2, files say `numpy._core` for `numpy.core`.

    Written in Python, unlike the usual one, which hashes keys before anybody sees them. Checkpoints have few items.
    """

    dispatch: ClassVar = {
        **pickle._Unpickler.dispatch,
        **_checking(pickle.SETITEM, slice(-2, -1)),
        **_checking(pickle.SETITEMS, slice(0, None, 2)),
        **_checking(pickle.DICT, slice(0, None, 2)),
        **_checking(pickle.ADDITEMS, slice(None)),
        **_checking(pickle.FROZENSET, slice(None)),
        **_checking_arguments(pickle.REDUCE),
        **_checking_arguments(pickle.BINPERSID),
        pickle.BYTEARRAY8[0]: _push_bytearray,
        pickle.BUILD[0]: _set_state,
    }

    STAND_INS: ClassVar[dict[tuple[str, str], Any]] = {
        ("collections", "OrderedDict"): _ordered_dict,
        ("builtins", "set"): _content,
        ("__builtin__", "set"): _content,
        ("__builtin__", "bytes"): _no_bytes,  # in protocols 0 to 2
        ("_codecs", "encode"): _Latin1,  # makes the bytes of an array, in protocols 0 to 2
        ("numpy", "dtype"): _NumberType,
        ("numpy", "ndarray"): _NumpyArray,
        ("numpy.core.multiarray", "_reconstruct"): _NumpyArray,
        ("numpy.core.multiarray", "scalar"): _NumpyArray.scalar,
        ("numpy.core.numeric", "_frombuffer"): _NumpyArray.from_buffer,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Returns the harmless stand-in for a global, or raises."""
        stand_in = self.STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
        if stand_in is None:
            raise RefusedError(f"`{module}.{name}`" if f"{module}{name}".isprintable() else repr(f"{module}.{name}"))
        return stand_in
