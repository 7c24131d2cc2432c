"""What every kind of store promises, beside what `test_files.py` asks of `Storage`."""

import pickle
from pathlib import Path

import pytest

from pipelines.storage.cloud_store import CloudStore
from pipelines.storage.local import LocalStore
from pipelines.storage.store import Entry, Store
from tests.pipelines.storage.clouds import OTHERS, bucket_in


@pytest.fixture(params=["folder", "s3", *OTHERS])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    store: Store
    if request.param == "folder":
        store = LocalStore(str(tmp_path / "root"))
    else:
        store = CloudStore(f"{bucket_in(request.param, request)}/a root")
    return pickle.loads(pickle.dumps(store))


def write(store: Store, path: str, data: bytes) -> None:
    with store.write(path) as file:
        file.write(data)


def names(store: Store, folder: str) -> list[str]:
    return sorted(entry.path for entry in store.list(folder, deep=True))


def test_lists_have_sizes_and_may_be_deep(store: Store) -> None:
    for path in ("a/1", "a/b/2", "3"):
        write(store, path, path.encode())
    assert [(entry.path, entry.size) for entry in store.list("a")] == [("a/1", 3)]
    assert names(store, "a") == ["a/1", "a/b/2"]
    assert names(store, ".") == ["3", "a/1", "a/b/2"]
    entry = store.stat("a/b/2")
    assert entry is not None
    assert (entry.path, entry.size) == ("a/b/2", 5)
    assert store.stat("a/b") is store.stat("absent") is None


def test_files_are_read_from_any_position(store: Store) -> None:
    write(store, "a", bytes(range(200)))
    with store.open("a") as file:
        file.seek(100)
        assert file.read(5) == bytes(range(100, 105))
        file.seek(-2, 2)
        assert file.read() == bytes([198, 199])
    with pytest.raises(FileNotFoundError):
        store.open("absent")


def test_files_are_downloaded(store: Store, tmp_path: Path) -> None:
    write(store, "a/b", b"one")
    store.download([(entry, tmp_path / "new/folder" / entry.path) for entry in store.list("a")])
    assert (tmp_path / "new/folder/a/b").read_bytes() == b"one"
    with pytest.raises(FileNotFoundError):
        store.download([(Entry(path="absent", size=1), tmp_path / "c")])


def test_folders_are_replaced_and_removed(store: Store, tmp_path: Path) -> None:
    for name, content in (("source/1", "one"), ("source/in/2", "two")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    write(store, "x/old", b"")
    for _ in range(2):
        store.put_folder(tmp_path / "source", "x/y")
    assert names(store, "x") == ["x/old", "x/y/1", "x/y/in/2"]
    (tmp_path / "source/1").unlink()
    store.put_folder(tmp_path / "source", "x/y")
    assert names(store, ".") == ["x/old", "x/y/in/2"]
    store.remove_folder("x/y")
    store.remove_folder("absent")
    assert names(store, ".") == ["x/old"]
