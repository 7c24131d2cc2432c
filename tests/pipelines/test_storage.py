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
