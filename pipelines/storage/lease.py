"""A lease on an output: one run writes at a time, and a dead run does not block the next one.

Clocks of different machines are never compared: a run that wants the lease watches whether the holder still renews it.
"""

import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.storage.files import ELSEWHERE, Storage

LEASE = "lease.json"

RENEW_S = 5.0
EXPIRE_S = 30.0
"""After this long without a renewal, others may take the holder for dead, and the holder removes nothing any more."""

_POLL_S = 0.5
_RENEWALS = 3  # one that an outage delayed counts from its request, which may be too long ago


class Lease:
    """A lease that this process holds; a thread renews it.

    Args:
        storage: the output.
        tag: tag of the lease file as it was written.
        content: content of the lease file.
        asked: time, as of `_now`, before the request that wrote it.
    """

    def __init__(self, storage: Storage, tag: str, content: dict[str, Any], asked: float) -> None:
        self._storage, self._tag, self._content = storage, tag, content
        self._renewed = asked
        self._lost: str | None = None
        self._renewing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_ended, daemon=True)
        self._thread.start()

    @property
    def id(self) -> str:
        """The id by which other processes of this run recognise the lease."""
        holder: str = self._content["id"]
        return holder

    def check(self) -> None:
        """Raises unless no other run can hold the lease: required before anything is removed.

        Raises:
            RuntimeError: another run took over, or may be about to.
            OSError: the lease is due for a renewal, and the storage does not answer or refuses.
        """
        for _ in range(_RENEWALS):
            if not self._lost and _now() - self._renewed > EXPIRE_S:
                self._renew()
        self.check_holder(EXPIRE_S)

    def check_holder(self, patience_s: float) -> None:
        """Raises if another run took over, or if the storage is away for too long: enough for adding files.

        A machine that was suspended renews the lease first.

        Args:
            patience_s: how long the lease may go without a renewal.

        Raises:
            RuntimeError: nothing of this run may count from now on.
        """
        if not self._lost and _now() - self._renewed > patience_s:
            with suppress(OSError):
                self._renew()
        if self._lost:
            raise RuntimeError(self._lost)
        if _now() - self._renewed > patience_s:
            raise RuntimeError(f"the lease on {self._storage.root} could not be renewed for {patience_s:g} s")

    def release(self) -> None:
        """Lets the next run start at once; does nothing if the lease is lost."""
        self._ended.set()
        self._thread.join()
        if not self._lost:
            with suppress(OSError):  # it will expire
                self._storage.replace_tagged(LEASE, _json({**self._content, "released": True}), self._tag)

    def _renew_until_ended(self) -> None:
        while not self._lost and not self._ended.wait(RENEW_S):
            with suppress(OSError):  # the storage may recover
                self._renew()

    def _renew(self) -> None:
        with self._renewing:
            content = {**self._content, "renewals": self._content["renewals"] + 1}
            asked = _now()  # others count from when the storage has it, which is later
            tag = self._storage.replace_tagged(LEASE, _json(content), self._tag)
            if tag is not None:
                self._tag, self._content, self._renewed = tag, content, asked
                return
            current = self._storage.read_tagged(LEASE)
            if current and holder_id(current[0]) == self.id:  # an earlier request got there after its time-out
                self._tag, self._content = current[1], json.loads(current[0])
            else:
                self._lost = f"another run took over {self._storage.root}, because this one did not renew its lease"


@contextmanager
def hold_lease(storage: Storage) -> Iterator[Lease]:
    """Holds the lease on an output while the block runs; takes it over from a dead run.

    Taking over takes up to `EXPIRE_S`, or no time if the dead run was on this machine.

    Args:
        storage: the output.

    Raises:
        ValueError: another run holds the lease, which names its process and machine; or the storage cannot keep two
            runs from holding it.
    """
    try:
        lease = _acquire(storage)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        raise ValueError(f"output: {storage.root}: {error.strerror}") from error
    try:
        yield lease
    finally:
        lease.release()


def _acquire(storage: Storage) -> Lease:
    content: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "processes": _processes(),
        "pid": os.getpid(),
        "renewals": 0,
        "released": False,
    }
    seen: str | None = None
    watched = 0.0
    while True:
        polled = time.monotonic()
        current = storage.read_tagged(LEASE)
        answered = time.monotonic()
        # From the answer on, because the holder's renewal may be as young as that; without the time of later requests,
        # because while the storage is away the holder cannot renew either.
        watched = answered if seen is None else watched + answered - polled
        tag = current and current[1]
        free = current is None or _is_free(current[0]) or (tag == seen and time.monotonic() - watched > EXPIRE_S)
        asked = _now()
        if free and (written := storage.replace_tagged(LEASE, _json(content), tag)):
            content["renewals"] += 1
            if checked := _check_conditions(storage, content, written):
                return Lease(storage, checked, content, asked)
        if current and seen not in (None, tag):
            holder = json.loads(current[0])
            raise ValueError(
                f"output: {storage.root} is being written by another run (process {holder['pid']} on "
                f"{holder['host']}); wait until it ends, or choose another output"
            )
        seen = tag
        time.sleep(_POLL_S)


def _now() -> float:
    """Returns a time in seconds that goes on while this machine is suspended, if its system has one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _check_conditions(storage: Storage, content: dict[str, Any], tag: str) -> str | None:
    """Checks that the storage refuses a write whose condition does not hold; one that ignores it gets a released lease.

    Args:
        storage: the output.
        content: of a renewal of the lease, which is written between the two checks.
        tag: tag of the lease as it is.

    Returns:
        The tag of the renewal; None if another writer was first.

    Raises:
        OSError: it does not refuse.
    """
    unwanted = _json({**content, "released": True})

    def check(condition: str, tag: str | None) -> None:
        if storage.replace_tagged(LEASE, unwanted, tag):
            text = f"the server ignores {condition}, so two runs could write at once; use one with conditional writes"
            raise OSError(errno.ENOTSUP, text, storage.root)

    check("If-None-Match", None)
    renewed = storage.replace_tagged(LEASE, _json(content), tag)
    if renewed:
        check("If-Match", tag)
    return renewed


def check_holder(storage: Storage, holder: str) -> None:
    """Raises unless the lease names this run; any process of the run may ask, before it puts a file in place.

    Raises:
        RuntimeError: another run took over, or this one has ended.
        ValueError: there is no lease, so this machine sees another folder under the name of the output.
        OSError: the storage cannot be read.
    """
    found = storage.read_bytes(LEASE)
    if found is None:
        raise ValueError(f"output: {storage.root} {ELSEWHERE}")
    if holder_id(found) != holder:
        raise RuntimeError(
            f"another run took over {storage.root}, or this one has ended; nothing of it is added any more"
        )


def holder_id(data: bytes) -> str | None:
    """Returns the id of the run that holds a lease; None if it was released, or the file is damaged."""
    try:
        holder = json.loads(data)
        return None if holder["released"] else str(holder["id"])
    except (ValueError, KeyError, TypeError):
        return None


def _is_free(data: bytes) -> bool:
    """Returns whether a lease was released, is damaged, or was held by a process of this machine that has ended."""
    try:
        holder = json.loads(data)
        released, processes, pid = bool(holder["released"]), holder.get("processes"), int(holder["pid"])
    except (ValueError, KeyError, TypeError):
        return True
    return released or (processes == _processes() and not _is_running(pid))


def _processes() -> str:
    """Returns an id of the set of processes visible here: those of this machine since its boot, or of one container."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode()
