import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from pipelines.video.heartbeat import beat
from pipelines.video.isolation import IsolatedProcess, isolated
from pipelines.video.options import Limits
from pipelines.video.plan import MachineError, VideoError

LIMITS = Limits(silence_s=5.0, memory_bytes=500 * 10**6)


def count(last: int) -> Iterator[tuple[int, int]]:
    for number in range(last):
        yield number, os.getpid()


def crash(how: int) -> Iterator[int]:
    yield 1
    os.kill(os.getpid(), how)
    time.sleep(60)


def hang() -> Iterator[int]:
    yield 1
    time.sleep(60)


def trickle(pause_s: float) -> Iterator[int]:
    for number in range(1, 1000):
        yield number
        time.sleep(pause_s)


def bloat(size: int) -> Iterator[int]:
    yield int(np.ones(size, np.uint8).sum())


def refuse(error: type[Exception]) -> Iterator[int]:
    yield 1
    raise error("no good")


def decode_slowly(seconds: float) -> Iterator[str]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.1)
        beat()
    yield "frame"


def process_id() -> int:
    with isolated(LIMITS) as process:
        ((_, pid),) = process.run(count, 1)
    return pid


def test_values_come_in_order_from_one_other_process() -> None:
    with isolated(LIMITS) as process:
        values = list(process.run(count, 100))
    assert [number for number, _ in values] == list(range(100))
    assert {pid for _, pid in values} == {process_id()} != {os.getpid()}


@pytest.mark.parametrize(
    ("function", "argument", "message"),
    [
        (crash, signal.SIGSEGV, r"^its decoder crashed \(SIGSEGV\)$"),
        (hang, None, "^its decoder stood still for 5 s$"),
    ],
)
def test_what_breaks_the_process_is_an_error_of_the_video(function: object, argument: object, message: str) -> None:
    before = process_id()
    values = []
    with pytest.raises(VideoError, match=message), isolated(LIMITS) as process:
        values.extend(process.run(function, *([] if argument is None else [argument])))  # type: ignore[arg-type]
    assert values == [1]
    assert process_id() != before
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_kills_the_process_from_outside_is_no_error_of_the_video(number: signal.Signals) -> None:
    message = rf"^its decoder was killed \({number.name}\), as where memory runs out$"
    with pytest.raises(MachineError, match=message), isolated(Limits()) as process:
        list(process.run(crash, number))


def test_a_process_that_does_not_start_is_no_error_of_the_video(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.video.isolation._START_S", 0.0)
    with pytest.raises(MachineError, match="did not start within 0 s"):
        IsolatedProcess(LIMITS)


def test_what_never_stands_still_ends_too() -> None:
    limits = Limits(silence_s=2.0, total_s=1.0, memory_bytes=500 * 10**6)
    with pytest.raises(VideoError, match="^its decoder took more than 1 s$"), isolated(limits) as process:
        for _ in process.run(trickle, 0.1):
            pass


def rights() -> Iterator[tuple[list[str], bool, bool, str]]:
    names = sorted(os.environ)
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"x")
            file.flush()
        writes = True
    except OSError:
        writes = False
    status = Path("/proc/self/status").read_text()
    interfaces = [name for _, name in socket.if_nameindex()]
    yield names, writes, "NoNewPrivs:\t1" in status, ",".join(interfaces)


def test_a_decoder_has_no_credentials_and_few_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(name, "secret")
    with isolated(Limits(memory_bytes=600 * 10**6)) as process:
        ((names, writes, no_new_rights, interfaces),) = process.run(rights)
    assert not [name for name in names if "AWS" in name or "TOKEN" in name]
    assert "PATH" in names
    assert not writes
    if sys.platform == "linux":
        assert no_new_rights
        # In a namespace of its own it sees no other interface; where the system forbids that, all of them.
        assert interfaces in ("lo", ",".join(name for _, name in socket.if_nameindex()))


def send_pickle() -> Iterator[int]:
    descriptor = int(sys.argv[1])
    Connection(os.dup(descriptor)).send(print)
    yield 1


def test_pickles_from_a_decoder_are_not_read() -> None:
    with pytest.raises(VideoError, match="^its decoder sent an invalid message$"), isolated(Limits()) as process:
        list(process.run(send_pickle))


def test_a_slow_decoder_that_works_is_no_standstill() -> None:
    """It may be 100 frames to the next one that is kept."""
    limits = Limits(silence_s=2.0, memory_bytes=500 * 10**6)
    with isolated(limits) as process:
        assert list(process.run(decode_slowly, 3.0)) == ["frame"]


def test_the_time_of_whoever_takes_the_values_is_not_the_decoders() -> None:
    limits = Limits(silence_s=5.0, total_s=3.0, memory_bytes=500 * 10**6)
    with isolated(limits) as process:
        numbers = process.run(count, 4)
        next(numbers)
        time.sleep(3.5)
        assert [number for number, _ in numbers] == [1, 2, 3]


@pytest.mark.parametrize(
    ("function", "argument", "message"),
    [
        (bloat, 10**9, "^needs more than 0.5 GB to decode$"),
        (refuse, VideoError, "^no good$"),
        (refuse, KeyError, r"^decoding failed: KeyError\('no good'\)$"),
    ],
)
def test_errors_leave_the_process_as_it_is(function: object, argument: object, message: str) -> None:
    before = process_id()
    with pytest.raises(VideoError, match=message), isolated(LIMITS) as process:
        list(process.run(function, argument))  # type: ignore[arg-type]
    assert process_id() == before
    with isolated(LIMITS) as process:
        assert list(process.run(bloat, 10**8)) == [10**8]


def test_an_error_of_the_machine_stays_one() -> None:
    before = process_id()
    with pytest.raises(MachineError, match="^no good$"), isolated(LIMITS) as process:
        list(process.run(refuse, MachineError))
    assert process_id() == before


def test_a_generator_that_is_left_ends_its_process() -> None:
    before = process_id()
    with isolated(LIMITS) as process:
        assert next(process.run(count, 10**6)) == (0, before)
    assert process_id() != before


def test_a_process_that_died_idle_is_replaced() -> None:
    before = process_id()
    os.kill(before, signal.SIGKILL)
    time.sleep(0.1)
    assert process_id() != before
