"""A lease on an output: one run writes at a time, and one that died keeps nobody out.

No clock is compared with that of another machine: who wants the lease watches whether its holder still renews it.
"""

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

from pipelines.storage.files import Storage

LEASE = "lease.json"

RENEW_S = 5.0
EXPIRE_S = 30.0
"""Without a renewal for so long, a holder is taken for dead, and knows itself that it no longer holds the lease."""

_POLL_S = 0.5


class Lease:
    """What `hold_lease` gives to its holder.

    Args:
        storage: the output.
        tag: of the lease as it was written.
        content: of the lease.
    """

    def __init__(self, storage: Storage, tag: str, content: dict[str, Any]) -> None:
        self._storage, self._tag, self._content = storage, tag, content
        self._renewed = time.monotonic()
        self._lost: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_ended, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises if the lease is lost.

        Raises:
            RuntimeError: says why; whatever is written from now on may collide with another run.
        """
        if self._lost:
            raise RuntimeError(self._lost)
        if time.monotonic() - self._renewed > EXPIRE_S:
            raise RuntimeError(f"the lease on {self._storage.root} could not be renewed for {EXPIRE_S:g} s")

    def release(self) -> None:
        """Lets the next run in at once; nothing happens if the lease is lost."""
        self._ended.set()
        self._thread.join()
        if not self._lost:
            with suppress(OSError):  # it will expire
                self._storage.replace_tagged(LEASE, _json({**self._content, "released": True}), self._tag)

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(RENEW_S):
            content = {**self._content, "renewals": self._content["renewals"] + 1}
            try:
                tag = self._storage.replace_tagged(LEASE, _json(content), self._tag)
            except OSError:  # the storage may come back in time
                continue
            if tag is None:
                self._lost = f"another run took over {self._storage.root}, since this one had not renewed its lease"
                return
            self._tag, self._content, self._renewed = tag, content, time.monotonic()


@contextmanager
def hold_lease(storage: Storage) -> Iterator[Lease]:
    """Holds the lease on an output while the block runs; takes it over from a run that died.

    That takes up to `EXPIRE_S`; no time if it ran on this machine.

    Args:
        storage: the output.

    Raises:
        ValueError: another run holds it; names the process and its machine.
    """
    lease = _acquire(storage)
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
    watched = time.monotonic()
    while True:
        found = storage.read_tagged(LEASE)
        tag = found and found[1]
        free = found is None or _is_free(found[0]) or (tag == seen and time.monotonic() - watched > EXPIRE_S)
        if free and (written := storage.replace_tagged(LEASE, _json(content), tag)):
            return Lease(storage, written, content)
        if found and seen not in (None, tag):
            holder = json.loads(found[0])
            raise ValueError(
                f"output: {storage.root} is being written by another run (process {holder['pid']} on "
                f"{holder['host']}); wait until it has ended, or choose another output"
            )
        seen = tag
        time.sleep(_POLL_S)


def _is_free(data: bytes) -> bool:
    """Whether a lease was given back, is damaged, or was held by a process of this machine that is gone."""
    try:
        holder = json.loads(data)
        released, processes, pid = bool(holder["released"]), holder.get("processes"), int(holder["pid"])
    except (ValueError, KeyError, TypeError):
        return True
    return released or (processes == _processes() and not _is_running(pid))


def _processes() -> str:
    """Which processes one can see: those of this machine since it started, or of a container of it."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
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
