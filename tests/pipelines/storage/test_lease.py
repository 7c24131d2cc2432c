import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.storage import lease as module
from pipelines.storage.files import Storage
from pipelines.storage.lease import LEASE, check_holder, hold_lease
from tests.pipelines.storage.clouds import OTHERS, Place, bucket_in
from tests.pipelines.storage.s3_server import Proxy
from tests.waiting import wait_until

HOLDER = """
import sys, time
from pipelines.storage.lease import hold_lease
from pipelines.storage.files import Storage
with hold_lease(Storage(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["folder", "s3", *OTHERS])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setattr(module, "RENEW_S", 0.1)
    monkeypatch.setattr(module, "EXPIRE_S", 1.0)
    monkeypatch.setattr(module, "_POLL_S", 0.05)
    return Storage(str(tmp_path) if request.param == "folder" else bucket_in(request.param, request))


def content(storage: Storage) -> dict[str, Any]:
    found = storage.read_tagged(LEASE)
    assert found is not None
    lease: dict[str, Any] = json.loads(found[0])
    return lease


def write(storage: Storage, **values: Any) -> None:
    there = {"id": "x", "host": "elsewhere", "processes": "others", "pid": 1, "renewals": 0, "released": False}
    data = json.dumps(there | values).encode()

    def replaced() -> bool:
        """Not if the holder renewed it between these two."""
        found = storage.read_tagged(LEASE)
        return storage.replace_tagged(LEASE, data, found and found[1]) is not None

    wait_until(replaced)


def test_a_second_run_is_refused_and_the_first_one_goes_on(storage: Storage) -> None:
    message = rf"being written by another run \(process {os.getpid()} on "
    with hold_lease(storage) as first:
        with pytest.raises(ValueError, match=message), hold_lease(storage):
            pass
        before = content(storage)["renewals"]
        time.sleep(0.8)
        assert content(storage)["renewals"] > before
        first.check()
    with hold_lease(storage) as second:  # given back, it is free at once
        second.check()


def test_a_run_that_was_killed_is_followed_at_once(storage: Storage) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(storage.root)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert content(storage)["pid"] == holder.pid
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with hold_lease(storage) as lease:
        lease.check()
        assert content(storage)["pid"] == os.getpid()


def test_a_run_that_died_elsewhere_is_followed_after_a_while(storage: Storage) -> None:
    write(storage, host=socket.gethostname(), pid=2**22)  # as of a container of this very machine
    start = time.monotonic()
    with hold_lease(storage):
        assert time.monotonic() - start >= 1.0


def test_what_is_no_lease_keeps_nobody_out(storage: Storage) -> None:
    with storage.write(LEASE) as file:
        file.write(b'{"cut o')
    with hold_lease(storage) as lease:
        lease.check()


def test_who_lost_the_lease_is_message(storage: Storage) -> None:
    with hold_lease(storage) as lease:
        write(storage)
        time.sleep(0.4)
        with pytest.raises(RuntimeError, match="another run took over"):
            lease.check()
    assert content(storage)["host"] == "elsewhere"  # not given back


def test_who_cannot_renew_is_message(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError("no connection")

    with hold_lease(storage) as lease:
        monkeypatch.setattr(Storage, "replace_tagged", fail)
        monkeypatch.setattr(module, "EXPIRE_S", 60.0)
        time.sleep(0.5)
        lease.check()  # it may come back
        monkeypatch.setattr(module, "EXPIRE_S", 0.4)
        with pytest.raises(OSError, match="no connection"):
            lease.check()
        with pytest.raises(RuntimeError, match="could not be renewed for 0.4 s"):
            lease.check_holder(0.4)


def test_a_slow_renewal_counts_from_its_request(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may count from any moment of the request; from its answer, two runs would hold the lease."""
    replace = Storage.replace_tagged
    clock = [0.0]

    def slow(self: Storage, *arguments: Any) -> str | None:
        tag = replace(self, *arguments)
        clock[0] += 14.0
        return tag

    def fail(*arguments: Any) -> None:
        raise OSError("no connection")

    monkeypatch.setattr(module, "RENEW_S", 60.0)
    monkeypatch.setattr(module, "EXPIRE_S", 30.0)
    with hold_lease(storage) as lease:
        monkeypatch.setattr(module, "_now", lambda: clock[0])
        monkeypatch.setattr(Storage, "replace_tagged", slow)
        lease._renew()
        clock[0] = 29.0
        lease.check_holder(module.EXPIRE_S)
        clock[0] = 31.0
        monkeypatch.setattr(Storage, "replace_tagged", fail)
        with pytest.raises(RuntimeError, match="could not be renewed for 30 s"):
            lease.check_holder(module.EXPIRE_S)


def test_an_outage_does_not_end_a_run_that_nobody_follows(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Storage.replace_tagged

    def fail(*arguments: Any) -> None:
        raise OSError("no connection")

    with hold_lease(storage) as lease:
        monkeypatch.setattr(Storage, "replace_tagged", fail)
        time.sleep(1.2)
        lease.check_holder(60.0)  # files may be added
        with pytest.raises(OSError, match="no connection"):
            lease.check()  # none may be removed
        monkeypatch.setattr(Storage, "replace_tagged", replace)
        lease.check()  # asks at once


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="no clock that counts a suspension")
def test_a_machine_that_was_suspended_renews_first(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile another one may have taken over; the clock of this process stood still."""
    read, replace = time.clock_gettime, Storage.replace_tagged

    def fail(*arguments: Any) -> None:
        raise OSError("no connection")

    monkeypatch.setattr(module, "RENEW_S", 60.0)
    with hold_lease(storage) as lease:
        lease.check()
        monkeypatch.setattr(Storage, "replace_tagged", fail)
        monkeypatch.setattr(module.time, "clock_gettime", lambda clock: read(clock) + 3600.0)
        with pytest.raises(OSError, match="no connection"):
            lease.check()
        monkeypatch.setattr(Storage, "replace_tagged", replace)
        lease.check_holder(60.0)
        lease.check()


def test_a_renewal_that_an_outage_delayed_is_repeated(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts from its request, before the outage: by itself it would end a run that nobody follows."""
    replace = Storage.replace_tagged
    delays = [40.0]
    clock = [0.0]

    def slow(self: Storage, *arguments: Any) -> str | None:
        clock[0] += delays.pop() if delays else 0.1
        return replace(self, *arguments)

    monkeypatch.setattr(module, "RENEW_S", 60.0)
    monkeypatch.setattr(module, "EXPIRE_S", 30.0)
    with hold_lease(storage) as lease:
        monkeypatch.setattr(module, "_now", lambda: clock[0])
        lease._renew()
        monkeypatch.setattr(Storage, "replace_tagged", slow)
        clock[0] = 31.0
        lease.check()
        assert not delays


def test_an_outage_is_no_sign_of_death(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the storage is away, the holder cannot renew, and another run's request waits."""
    reads = 0
    read = Storage.read_tagged
    back = threading.Event()

    def slow(self: Storage, path: str) -> tuple[bytes, str] | None:
        nonlocal reads
        reads += 1
        if reads == 2:
            time.sleep(1.5 * module.EXPIRE_S)
            found = read(self, path)
            back.set()
            return found
        return read(self, path)

    def renew() -> None:
        back.wait()
        write(storage, renewals=1)

    write(storage)
    renewing = threading.Thread(target=renew)
    monkeypatch.setattr(Storage, "read_tagged", slow)
    renewing.start()
    with pytest.raises(ValueError, match="being written by another run"), hold_lease(storage):
        pass
    renewing.join()


def test_nothing_is_added_once_a_run_has_ended(storage: Storage) -> None:
    """By a process of it that outlives its driver."""
    with hold_lease(storage) as lease:
        check_holder(storage, lease.id)
    with pytest.raises(RuntimeError, match="or this one has ended; nothing of it is added any more"):
        check_holder(storage, lease.id)


def test_a_renewal_that_arrives_late_is_our_own(storage: Storage) -> None:
    """A request may be carried out after its sender gave it up."""
    with hold_lease(storage) as lease:
        with lease._renewing:
            write(storage, id=lease.id)
        time.sleep(0.4)
        lease.check()
    assert content(storage)["released"]


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_conditions_is_refused(header: str, bucket: str, proxy: Proxy) -> None:
    proxy.hidden = {header}
    storage = Storage(f"{bucket}/labels")
    message = f"^output: {storage.root}: the server ignores {header}, so two runs could write at once; use one with "
    with pytest.raises(ValueError, match=message), hold_lease(storage):
        pass
    assert content(storage)["released"]
    proxy.hidden = set()
    with hold_lease(storage) as lease:
        lease.check()


@pytest.mark.parametrize(
    ("ignored", "header"), [("ifGenerationMatch=0", "If-None-Match"), (r"ifGenerationMatch=[1-9]\d*", "If-Match")]
)
def test_a_google_that_ignores_conditions_is_refused(ignored: str, header: str, gcs_place: Place) -> None:
    gcs_place.proxy.hidden = {ignored}
    storage = Storage(f"{gcs_place.bucket}/labels")
    message = f"^output: {storage.root}: the server ignores {header}, so two runs could write at once"
    with pytest.raises(ValueError, match=message), hold_lease(storage):
        pass
    assert content(storage)["released"]


def test_a_server_without_conditional_writes_is_refused(bucket: str, proxy: Proxy) -> None:
    proxy.refuse(501, "NotImplemented", methods=["PUT"])
    message = f"^output: {bucket}: the server has no conditional writes; use one that has"
    with pytest.raises(ValueError, match=message), hold_lease(Storage(bucket)):
        pass
