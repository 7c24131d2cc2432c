"""JSON files of annotations and predictions, of which run lengths are all but a few per cent.

Run lengths are lifted out of the text before it is parsed, so that no mask becomes a Python text.
"""

import gc
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int64, UInt8

_T = TypeVar("_T")

_RUN_LENGTHS = re.compile(rb'(?<!\\)"(?:counts|rle)"\s*+:\s*+(?:"([^"]*+)"|[-0-9])')
"""A key and its value: run lengths, or a number, which could be taken for the position of some."""

_ESCAPED_LETTER = re.compile(rb"\\u00[67]")


class OddityError(ValueError):
    """A file is refused for something that official tools accept; the message is the same without its run lengths."""


class Lifted(NamedTuple):
    """Run lengths that were lifted out of a file; they are left as JSON spells them, with doubled backslashes.

    Attributes:
        data: bytes of the file.
        begins: position of the first character of each.
        stops: position after the last character of each.
    """

    data: UInt8[np.ndarray, "L"]
    begins: Int64[np.ndarray, "n"]
    stops: Int64[np.ndarray, "n"]


NOTHING = Lifted(np.zeros(0, np.uint8), np.zeros(0, np.int64), np.zeros(0, np.int64))


class Document(NamedTuple):
    """A JSON file.

    Attributes:
        content: its values; in place of run lengths under `counts` or `rle` their position in `lifted`.
        lifted: run lengths that were lifted. None are if the file itself has a number in such a place.
        sha256: hash of the file's bytes.
        plain: whether nothing may be lifted.
    """

    content: Any
    lifted: Lifted
    sha256: str
    plain: bool


def read_json(path: str) -> tuple[Any, str]:
    """Returns the content of a JSON file and the sha256 of its bytes.

    Raises:
        ValueError: the file is missing, truncated, nested too deeply or not JSON; names it.
    """
    data = _bytes(path)
    return _parsed(path, data), hashlib.sha256(data).hexdigest()


def read_document(path: str, read: Callable[[Document], _T], *, every_error: bool = False) -> _T:
    """Returns what `read` makes of a JSON file with its run lengths lifted.

    If `read` refuses that, it gets the file as it is, so that errors show what stands there. After an `OddityError`, it
    does so only to collect every error.

    Raises:
        ValueError: as `read_json` and `read`.
    """
    data = _bytes(path)
    sha256 = hashlib.sha256(data).hexdigest()
    with _no_garbage():
        if json.detect_encoding(data) == "utf-8":
            try:
                rest, lifted = _lift(data)
                return read(Document(json.loads(rest), lifted, sha256, plain=False))
            except (ValueError, RecursionError) as error:
                if isinstance(error, OddityError) and not every_error:
                    raise
        return read(Document(_parsed(path, data), NOTHING, sha256, plain=True))


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Keeps Python from searching for garbage: again and again it would look at all values read so far."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _bytes(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error


def _parsed(path: str, data: bytes) -> Any:
    try:
        return json.loads(data.decode(json.detect_encoding(data)))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON, or cut off ({error})") from error
    except RecursionError as error:
        raise ValueError(f"{path}: nested too deeply for any known format; give another file") from error


def _lift(data: bytes) -> tuple[bytes, Lifted]:
    """Returns the JSON with positions in place of run lengths, and the run lengths, which need not be sound."""
    rest: list[bytes] = []
    begins: list[int] = []
    stops: list[int] = []
    kept = 0
    if _ESCAPED_LETTER.search(data):  # which a key may have
        return data, NOTHING
    for match in _RUN_LENGTHS.finditer(data):
        begin, stop = match.span(1)
        if begin < 0 or _is_escaped(data, begin, stop):
            return data, NOTHING
        rest += data[kept : begin - 1], b"%d " % len(begins)
        begins.append(begin)
        stops.append(stop)
        kept = stop + 1
    rest.append(data[kept:])
    return b"".join(rest), Lifted(np.frombuffer(data, np.uint8), np.array(begins, np.int64), np.array(stops, np.int64))


def _is_escaped(data: bytes, begin: int, stop: int) -> bool:
    """Whether the quote at `stop` is part of the text that begins there; run lengths have no quotes."""
    if not data.endswith(b"\\", begin, stop):
        return False
    text = data[begin:stop]
    return (len(text) - len(text.rstrip(b"\\"))) % 2 == 1
