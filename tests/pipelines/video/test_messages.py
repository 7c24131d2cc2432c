import json
import pickle
from dataclasses import dataclass
from multiprocessing import Pipe
from typing import Any

import numpy as np
import pytest

from pipelines.video.messages import receive, send


@dataclass(frozen=True)
class Inner:
    pixels: np.ndarray


@dataclass(frozen=True)
class Outer:
    name: str
    parts: tuple[Inner, ...]
    times: np.ndarray


KINDS = {"Inner": Inner, "Outer": Outer}


def through(value: object) -> Any:
    here, there = Pipe()
    send(there, value)
    return receive(here, KINDS)


def test_values_arrive_as_they_were() -> None:
    value = Outer("é", (Inner(np.arange(24, dtype=np.uint8).reshape(2, 4, 3)[:, ::-1]),) * 2, np.zeros(0))
    arrived = through(("value", value))
    assert arrived[0] == "value"
    assert (arrived[1].name, len(arrived[1].parts)) == ("é", 2)
    for part in arrived[1].parts:
        assert np.array_equal(part.pixels, value.parts[0].pixels)
    assert (arrived[1].times.dtype, arrived[1].times.shape) == (np.float64, (0,))
    for plain in (None, True, 1.5, [1, (2, None)], np.float64(2.5)):
        assert through(plain) == plain


@pytest.mark.parametrize(
    "message",
    [
        pickle.dumps(print),
        b"\xff",
        b'{"kind": "Popen", "fields": {"args": "id"}}',
        b'{"kind": "Inner", "fields": {"other": 1}}',
        b'{"array": "object", "shape": [1]}',
        b'{"array": "uint8", "shape": [-1]}',
        json.dumps({"array": "uint8", "shape": [2, 2]}).encode(),  # what follows is too long
        b"[" * 100_000,
    ],
)
def test_nothing_else_is_read(message: bytes) -> None:
    here, there = Pipe()
    there.send_bytes(message)
    there.send_bytes(b"12345")
    with pytest.raises((ValueError, OSError)):
        receive(here, KINDS)
