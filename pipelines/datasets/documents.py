"""JSON files of annotations and predictions, of which run lengths are all but a few per cent.

Run lengths are lifted out of the text before it is parsed, so that no mask becomes a Python text.
"""

import gc
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int64, UInt8

from pipelines.datasets.compiled import kernel

_T = TypeVar("_T")

_BLOCK = 1 << 18  # bytes searched at a time, so that they stay in the cache
_KEYS = np.frombuffer(b"counts;rle;", np.uint8)  # of run lengths; each ends with a semicolon
_QUOTE, _BACKSLASH, _COLON, _SEMICOLON, _SPACE, _MINUS, _NINE = b'"\\:; -9'


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
    """Returns the JSON with positions in place of run lengths, and the run lengths."""
    text = np.frombuffer(data, np.uint8)
    found = [np.flatnonzero(text[at : at + _BLOCK] == _QUOTE) + at for at in range(0, len(text), _BLOCK)]
    quotes = np.concatenate([np.zeros(0, np.int64), *found])
    # Memory that is not written to takes none, so there is room for the worst case.
    rest = np.empty(2 * len(text) + 16, np.uint8)
    begins, stops = np.empty(len(quotes), np.int64), np.empty(len(quotes), np.int64)
    copied, lifted = _lift_texts(text, quotes, _KEYS, rest, begins, stops)
    if copied < 0:
        return data, NOTHING
    return rest[:copied].tobytes(), Lifted(text, begins[:lifted].copy(), stops[:lifted].copy())


@kernel
def _is_one_of(keys: UInt8[np.ndarray, "K"], text: UInt8[np.ndarray, "L"], begin: int, stop: int) -> bool:
    """Whether the text has one of the keys there."""
    place, same = begin, True
    for character in keys:
        if character == _SEMICOLON:
            if same and place == stop:
                return True
            place, same = begin, True
        else:
            same = same and place < stop and text[place] == character
            place += 1
    return False


@kernel
def _copy(text: UInt8[np.ndarray, "L"], begin: int, stop: int, rest: UInt8[np.ndarray, "R"], place: int) -> int:
    """Copies some of a text; returns the place after it."""
    for at in range(begin, stop):
        rest[place] = text[at]
        place += 1
    return place


@kernel
def _next(text: UInt8[np.ndarray, "L"], place: int) -> int:
    """Returns the place of the next character that is no space, at most the last one."""
    while place < len(text) - 1 and text[place] <= _SPACE:
        place += 1
    return min(place, len(text) - 1)


@kernel
def _closing(text: UInt8[np.ndarray, "L"], quotes: Int64[np.ndarray, "Q"], opening: int) -> int:
    """Returns the number of the quote that closes a text, or that of quotes if none does."""
    for number in range(opening + 1, len(quotes)):
        before = quotes[number]
        while text[before - 1] == _BACKSLASH:
            before -= 1
        if (quotes[number] - before) % 2 == 0:
            return number
    return len(quotes)


@kernel
def _lift_texts(
    text: UInt8[np.ndarray, "L"],
    quotes: Int64[np.ndarray, "Q"],
    keys: UInt8[np.ndarray, "K"],
    rest: UInt8[np.ndarray, "R"],
    begins: Int64[np.ndarray, "Q"],
    stops: Int64[np.ndarray, "Q"],
) -> tuple[int, int]:
    """Fills `rest`, `begins` and `stops`; returns the length of `rest` and the number of texts.

    The length is -1 if one of the keys has a number. JSON that is not sound stays so.
    """
    quote = read = copied = lifted = 0
    while quote < len(quotes):
        closing = _closing(text, quotes, quote)
        if closing == len(quotes):
            break
        begin, stop = quotes[quote] + 1, quotes[closing]
        colon = _next(text, stop + 1)
        quote = closing + 1
        if text[colon] != _COLON or not _is_one_of(keys, text, begin, stop):
            continue
        value = _next(text, colon + 1)
        if text[value] == _MINUS or 48 <= text[value] <= _NINE:
            return -1, 0
        if text[value] != _QUOTE:
            continue
        closing = _closing(text, quotes, quote)
        if closing == len(quotes):
            break
        copied = _write(lifted, rest, _copy(text, read, value, rest, copied))
        begins[lifted], stops[lifted] = value + 1, quotes[closing]
        lifted += 1
        read, quote = quotes[closing] + 1, closing + 1
    return _copy(text, read, len(text), rest, copied), lifted


@kernel
def _write(number: int, rest: UInt8[np.ndarray, "R"], place: int) -> int:
    """Writes a number in decimal digits and a space, which ends it; returns the place after both."""
    power = 1
    while power * 10 <= number:
        power *= 10
    while power > 0:
        rest[place] = 48 + number // power % 10
        place += 1
        power //= 10
    rest[place] = _SPACE
    return place + 1
