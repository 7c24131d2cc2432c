import os
from pathlib import Path

import pytest

from pipelines.storage.local import LocalStore, whole_file, whole_folder


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
