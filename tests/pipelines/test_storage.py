from multiprocessing import get_context
from pathlib import Path

import pytest

from pipelines.storage import Storage


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "out"))

    def fail_half_way() -> None:
        with storage.write("a/b.bin") as file:
            file.write(b"half")
            assert list(storage.list("a")) == []
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert list((tmp_path / "out/a").iterdir()) == []
    with storage.write("a/b.bin") as file:
        file.write(b"whole")
    assert list(storage.list("a")) == ["a/b.bin"]
    with storage.read("a/b.bin") as file:
        assert file.read() == b"whole"
    storage.remove("a/b.bin")
    storage.remove("a/b.bin")
    assert list(storage.list("a")) == []


def test_put_copies(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 100_000)
    Storage(f"file://{tmp_path}/out").put(tmp_path / "source", "c/d")
    assert (tmp_path / "out/c/d").read_bytes() == b"x" * 100_000


def test_bad_roots_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gs://bucket"):
        Storage("gs://bucket/x")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="output: cannot write"):
        Storage(str(tmp_path / "file")).check_writable()
    Storage(str(tmp_path / "new")).check_writable()
    assert list((tmp_path / "new").iterdir()) == []


def test_of_two_writers_that_saw_the_same_one_writes(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    assert storage.read_tagged("a/b") is None
    first = storage.replace_tagged("a/b", b"1", None)
    assert storage.replace_tagged("a/b", b"2", None) is None
    assert storage.read_tagged("a/b") == (b"1", first)
    second = storage.replace_tagged("a/b", b"3", first)
    assert storage.replace_tagged("a/b", b"4", first) is None
    assert storage.read_tagged("a/b") == (b"3", second)


def count_up(root: str, times: int) -> None:
    storage = Storage(root)
    for _ in range(times):
        while True:
            found = storage.read_tagged("count")
            if storage.replace_tagged("count", str(int(found[0]) + 1 if found else 1).encode(), found and found[1]):
                break


def test_no_writer_comes_between(tmp_path: Path) -> None:
    writers = [get_context("spawn").Process(target=count_up, args=(str(tmp_path), 50)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (tmp_path / "count").read_text() == "200"
