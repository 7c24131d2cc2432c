"""What a decoder tells its parent, as JSON and raw arrays.

A decoder parses strangers' files. If one takes it over, its messages must not run code in the parent, as pickles would.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

_MAX_BYTES = 2**31
_DTYPES = ("uint8", "int64", "float64")


def send(connection: Connection, value: object) -> None:
    """Sends a value: None, numbers, texts, lists, tuples, arrays, and dataclasses of them."""
    arrays: list[np.ndarray] = []
    connection.send_bytes(json.dumps(_plain(value, arrays)).encode())
    for array in arrays:
        connection.send_bytes(np.ascontiguousarray(array).data.cast("B") if array.size else b"")


def receive(connection: Connection, kinds: Mapping[str, type]) -> Any:
    """Receives a value.

    Args:
        connection: to the sender.
        kinds: the dataclasses that may be in it, by name.

    Raises:
        ValueError: it is not one that `send` sends.
        EOFError: the sender is gone.
    """
    message = connection.recv_bytes(_MAX_BYTES)
    try:
        return _value(json.loads(message), connection, kinds)
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"unreadable message ({error!r})") from error


def _plain(value: object, arrays: list[np.ndarray]) -> object:
    if dataclasses.is_dataclass(value):
        fields = {name: _plain(item, arrays) for name, item in vars(value).items()}
        return {"kind": type(value).__name__, "fields": fields}
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": str(value.dtype), "shape": value.shape}
    if isinstance(value, tuple):
        return {"tuple": [_plain(item, arrays) for item in value]}
    if isinstance(value, list):
        return [_plain(item, arrays) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _value(plain: Any, connection: Connection, kinds: Mapping[str, type]) -> Any:
    if isinstance(plain, list):
        return [_value(item, connection, kinds) for item in plain]
    if not isinstance(plain, dict):
        return plain
    if "kind" in plain:
        fields = {name: _value(item, connection, kinds) for name, item in plain["fields"].items()}
        return kinds[plain["kind"]](**fields)
    if "tuple" in plain:
        return tuple(_value(item, connection, kinds) for item in plain["tuple"])
    dtype, shape = plain["array"], tuple(plain["shape"])
    if dtype not in _DTYPES or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"unreadable message (an array of {dtype} {shape})")
    size = math.prod(shape) * np.dtype(dtype).itemsize
    content = connection.recv_bytes(min(size, _MAX_BYTES))
    return np.frombuffer(content, dtype).reshape(shape)
