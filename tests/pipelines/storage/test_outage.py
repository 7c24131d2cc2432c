import errno
from threading import Timer

import pytest

from pipelines.storage.files import Storage
from pipelines.storage.outage import is_away, left_while_away, outlast
from tests.pipelines.storage.s3_server import Outage

AWAY, FULL = (OSError(number, "no answer", "s3://bucket/labels") for number in (errno.EHOSTUNREACH, errno.ENOSPC))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time in seconds, which passes in pauses."""
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr("pipelines.storage.outage.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("pipelines.storage.outage.time.sleep", sleep)
    return clock


def test_work_outlasts_an_outage_and_no_other_error(clock: list[float]) -> None:
    answers: list[OSError | int] = [AWAY, AWAY, 7, FULL, AWAY]

    def work() -> int:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert outlast(work, 60.0) == 7
    with pytest.raises(OSError, match="no answer") as error:
        outlast(work, 60.0)
    assert error.value.errno == errno.ENOSPC
    assert answers == [AWAY]


def test_patience_counts_from_the_first_error(clock: list[float]) -> None:
    attempts = 0

    def work() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            clock[0] += 3600.0  # work before the outage
        raise AWAY

    with pytest.raises(OSError, match="no answer"):
        outlast(work, 60.0)
    assert clock[0] == 3660.0
    assert attempts == 61


def test_patience_begins_again_after_work_that_went_on_for_long(clock: list[float]) -> None:
    durations = [0.0, 3600.0, 3600.0]

    def work() -> int:
        if not durations:
            return 7
        clock[0] += durations.pop()
        raise AWAY

    assert outlast(work, 60.0) == 7


def test_what_is_left_while_away() -> None:
    with left_while_away():
        raise AWAY
    with pytest.raises(OSError, match="no answer"), left_while_away():
        raise FULL


def test_a_server_that_stands_still_is_away(outage: Outage) -> None:
    storage = Storage("s3://outage/labels")
    outage.begin()
    with pytest.raises(OSError, match="cannot be reached") as error:
        storage.read_bytes("absent")
    assert is_away(error.value)
    Timer(0.5, outage.resume).start()
    assert outlast(lambda: storage.read_bytes("absent"), 60.0) is None
