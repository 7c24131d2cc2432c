import errno
import fcntl
import os
import resource
import stat
from pathlib import Path
from typing import Any

import pytest

from pipelines.storage.local import LocalStore, whole_file, whole_folder
from tests.pipelines.storage.broken_disk import break_reads


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with whole_folder(tmp_path / "in/new") as draft:
            (draft / "half").touch()
            assert [path.name for path in (tmp_path / "in").iterdir()] == [draft.name]
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert list((tmp_path / "in").iterdir()) == []
    for name in ("one", "two"):
        with whole_folder(tmp_path / "in/new") as draft:
            (draft / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "in",
        "in/new",
        "in/new/two",
    ]


def test_an_earlier_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with whole_file(tmp_path / "a") as file:
        file.write(b"new")
        file.flush()
        assert (tmp_path / "a").read_bytes() == b"old"
    assert (tmp_path / "a").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


def test_folders_that_dead_writers_left_are_removed(tmp_path: Path) -> None:
    (tmp_path / "c/.step-1.0123.partial/model").mkdir(parents=True)
    (tmp_path / "c/step-1").mkdir()
    LocalStore(str(tmp_path)).remove_partial("c/step-*")
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step-1"]


def test_files_of_a_folder_are_stored_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power failure, a folder that was renamed first would have files of zeros."""
    synced = []

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, (tmp_path / "new").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with whole_folder(tmp_path / "new") as draft:
        (draft / "in").mkdir()
        (draft / "in/file").write_bytes(b"content")
    named = {path: path.stat().st_ino for path in (tmp_path / "new/in/file", tmp_path / "new/in", tmp_path / "new")}
    assert {inode for inode, was_named in synced if not was_named} == set(named.values())


def test_errors_of_an_open_file_name_it(tmp_path: Path) -> None:
    with LocalStore("/proc/self").open("mem") as memory, pytest.raises(OSError, match="'/proc/self/mem'") as error:
        memory.read(1)
    assert error.value.errno == errno.EIO
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "source").write_bytes(bytes(2000))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            LocalStore(str(tmp_path)).put(tmp_path / "source", "a/b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename == str(tmp_path / "a/b")
    assert list((tmp_path / "a").iterdir()) == []


def test_a_file_that_another_machine_removed_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"content")
    store = LocalStore(str(tmp_path))
    with monkeypatch.context() as patch:
        break_reads(patch, errno.ESTALE)
        with store.open("a") as file, pytest.raises(FileNotFoundError, match=f"{tmp_path}/a"):
            file.read()
    opened = []

    def open_(self: LocalStore, path: str) -> Any:
        """The first file is replaced once it is open."""
        opened.append(path)
        with monkeypatch.context() as patch:
            if len(opened) == 1:
                break_reads(patch, errno.ESTALE)
            return whole(self, path)

    whole = LocalStore.open
    monkeypatch.setattr(LocalStore, "open", open_)
    found = store.read_tagged("a")
    assert found is not None
    assert (found[0], len(opened)) == (b"content", 2)


def test_a_lock_is_one_that_other_machines_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS locks folders, and files that are open for reading, on each machine by itself."""
    locked, flock = [], fcntl.flock

    def note(descriptor: int, operation: int) -> None:
        mode = os.fstat(descriptor).st_mode
        locked.append((stat.S_ISREG(mode), fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE, oct(mode & 0o777)))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", note)
    tmp_path.chmod(0o770)
    for tag in (None, "another"):
        LocalStore(str(tmp_path)).replace_tagged("a", b"1", tag)
    assert locked == 2 * [(True, os.O_RDWR, "0o660")]  # whoever may write to the folder


def test_a_new_file_replaces_none_that_nobody_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a server without locks, where another machine has just written it."""
    (tmp_path / "a").write_bytes(b"theirs")
    store = LocalStore(str(tmp_path))
    monkeypatch.setattr(LocalStore, "read_tagged", lambda self, path: None)
    assert store.replace_tagged("a", b"mine", None) is None
    assert (tmp_path / "a").read_bytes() == b"theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "a"]


def test_disks_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    store = LocalStore(str(tmp_path))
    assert store.replace_tagged("a", b"1", None)
    assert store.replace_tagged("a", b"2", None) is None
    assert (tmp_path / "a").read_bytes() == b"1"
