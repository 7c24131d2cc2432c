import errno
import pickle
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import boto3
import pytest

from pipelines.storage import objects
from pipelines.storage.files import Storage, bad_input, folder_of, written_whole
from pipelines.storage.local import LocalStore
from pipelines.storage.store import Entry
from tests.pipelines.storage.clouds import OTHERS, bucket_in


@pytest.fixture(params=["folder", "s3", *OTHERS])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """One that is not there yet."""
    if request.param == "folder":
        return str(tmp_path / "out")
    return f"{bucket_in(request.param, request)}/with space/50%+é"


def everything(root: str, tmp_path: Path) -> set[str]:
    """Names of all files below the root, hidden ones too."""
    if not objects.is_remote(root):
        return {path.relative_to(root).as_posix() for path in Path(root).rglob("*") if path.is_file()}
    bucket = root.removesuffix(objects.key_of(root))
    return {each.uri.removeprefix(f"{root}/") for each in objects.list_objects(bucket)}


def test_a_file_appears_whole_or_not_at_all(root: str, tmp_path: Path) -> None:
    storage = pickle.loads(pickle.dumps(Storage(root)))
    assert not storage.root_exists()

    def fail_half_way() -> None:
        with storage.write("a/b.bin") as file:
            file.write(b"half")
            assert list(storage.list("a")) == []
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert everything(root, tmp_path) == set()
    with storage.write("a/b.bin") as file:
        file.write(b"whole")
    assert storage.root_exists()
    assert list(storage.list("a")) == ["a/b.bin"]
    assert storage.exists("a/b.bin")
    with storage.read("a/b.bin") as file:
        assert file.read() == b"whole"
    storage.remove("a/b.bin")
    storage.remove("a/b.bin")
    assert list(storage.list("a")) == []
    assert not storage.exists("a/b.bin")
    with pytest.raises(FileNotFoundError), storage.read("a/b.bin"):
        pass


def test_what_dead_writers_left_is_removed(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with storage.write("a/x.parquet") as file:
        file.write(b"whole")
    for name in ("a/.x.parquet.0123.partial", "a/.other.csv.0123.partial", ".lease.json.0123.partial"):
        (tmp_path / name).touch()
    storage.remove_partial("a/*.parquet")
    tag = storage.replace_tagged("lease.json", b"mine", None)
    assert tag is not None
    assert everything(str(tmp_path), tmp_path) == {"a/x.parquet", "a/.other.csv.0123.partial", "lease.json", ".lock"}
    assert list(storage.list(".")) == ["lease.json"]


def test_lists_are_of_one_folder(root: str, tmp_path: Path) -> None:
    storage = Storage(root)
    for path in ("a/1", "a/2 %+é?#", "a/b/3", "ab/4", "a/.hidden", "5"):
        with storage.write(path) as file:
            file.write(b"")
    assert sorted(storage.list("a")) == ["a/1", "a/2 %+é?#"]
    assert list(storage.list(".")) == ["5"]
    assert list(storage.list("absent")) == []
    assert storage.exists("./5")
    assert everything(root, tmp_path) == {"a/1", "a/2 %+é?#", "a/b/3", "ab/4", "a/.hidden", "5"}


def test_a_folder_made_in_a_console_is_no_file(bucket: str) -> None:
    boto3.client("s3").put_object(Bucket=bucket.removeprefix("s3://"), Key="out/a/")
    assert list(Storage(f"{bucket}/out").list("a")) == []


def test_put_copies(root: str, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 100_000)
    storage = Storage(root)
    storage.put(tmp_path / "source", "c/d")
    with storage.read("c/d") as file:
        assert file.read() == b"x" * 100_000
    assert everything(root, tmp_path) == {"c/d"}


def test_roots_are_told_whole(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Storage("out").root == Storage(f"file://{tmp_path}/out").root == str(tmp_path / "out")
    assert Storage(f"{bucket}/out/").root == f"{bucket}/out"


@pytest.mark.parametrize("path", ["../a", "a/../../b", "/etc/passwd", "a//b", "", ".."])
def test_no_path_leads_out(root: str, path: str, tmp_path: Path) -> None:
    storage = Storage(root)
    with pytest.raises(ValueError, match="leads out of its folder"), storage.write(path):
        pass
    with pytest.raises(ValueError, match="leads out of its folder"), storage.read(path):
        pass
    for act in (
        storage.exists,
        storage.remove,
        storage.remove_folder,
        storage.read_bytes,
        lambda path: list(storage.list(path)),
    ):
        with pytest.raises(ValueError, match="leads out of its folder"):
            act(path)
    with pytest.raises(ValueError, match="leads out of its folder"):
        storage.put(tmp_path / "a", path)


def test_bad_roots_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ftp://bucket/x: its scheme is unknown; give local folders, s3://"):
        Storage("ftp://bucket/x")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="output: cannot write"):
        Storage(str(tmp_path / "file")).check_writable()
    with pytest.raises(ValueError, match="s3:///a: names no bucket"):
        Storage("s3:///a")
    Storage(str(tmp_path / "new")).check_writable()
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_that_cannot_be_listed_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: LocalStore, folder: str, *, deep: bool = False) -> Iterator[Entry]:
        raise PermissionError(errno.EACCES, "Permission denied", folder)

    monkeypatch.setattr(LocalStore, "list", refuse)
    with pytest.raises(ValueError, match=r"output: cannot write to .* \(Permission denied\)"):
        Storage(str(tmp_path)).check_writable()
    assert list(tmp_path.iterdir()) == []


def test_a_file_has_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file, root in (
        ("/x", "/"),
        ("file:///x", "/"),
        ("file:///a/x", "/a"),
        ("a/x", f"{tmp_path}/a"),
        ("x", tmp_path),
    ):
        storage, name = folder_of(file)
        assert (storage.root, name) == (str(root), "x")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "labels: a/b: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), "labels: No space left on device"),
        (OSError("cannot be decoded"), "labels: cannot be decoded"),
    ],
)
def test_an_error_becomes_one_of_the_option(error: OSError, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"), bad_input("labels"):
        raise error


def test_a_file_is_given_its_name_once_it_is_whole(tmp_path: Path) -> None:
    with written_whole("sheet", f"{tmp_path}/x.png", ".png") as draft:
        draft.write_bytes(b"whole")
        assert list(tmp_path.iterdir()) == []
        assert draft.parent.name.startswith("openvis-")
    assert (tmp_path / "x.png").read_bytes() == b"whole"
    with pytest.raises(ValueError, match=r"^sheet: x.gif must end with .png"), written_whole("sheet", "x.gif", ".png"):
        pass
    output = f"{tmp_path}/x.png/y.png"
    with (
        pytest.raises(ValueError, match=f"^sheet: cannot write {output}"),
        written_whole("sheet", output, ".png") as draft,
    ):
        draft.touch()


def test_outputs_on_s3_are_tried(bucket: str, tmp_path: Path) -> None:
    Storage(f"{bucket}/new").check_writable("videos")
    assert everything(f"{bucket}/new", tmp_path) == set()
    for folder in ("", "videos"):
        with pytest.raises(ValueError, match="cannot write to s3://no-such-bucket/new/.*there is no such bucket"):
            Storage("s3://no-such-bucket/new").check_writable(folder)


def test_of_two_writers_that_saw_the_same_one_writes(root: str) -> None:
    storage = Storage(root)
    assert storage.read_tagged("a/b") is None
    first = storage.replace_tagged("a/b", b"1", None)
    assert storage.replace_tagged("a/b", b"2", None) is None
    assert storage.read_tagged("a/b") == (b"1", first)
    second = storage.replace_tagged("a/b", b"3", first)
    assert storage.replace_tagged("a/b", b"4", first) is None
    assert storage.read_tagged("a/b") == (b"3", second)
    storage.remove("a/b")
    assert storage.replace_tagged("a/b", b"5", second) is None
    assert storage.read_tagged("a/b") is None


def count_up(root: str, writer: int, times: int) -> None:
    storage = Storage(root)
    for _ in range(times):
        while True:
            found = storage.read_tagged("count")
            count = int(found[0].partition(b" ")[0]) + 1 if found else 1
            if storage.replace_tagged("count", f"{count} {writer}".encode(), found and found[1]):
                break


def test_no_writer_comes_between(root: str) -> None:
    arguments = [(root, writer, 8) for writer in range(3)]
    writers = [get_context("spawn").Process(target=count_up, args=its) for its in arguments]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = Storage(root).read_tagged("count")
    assert found is not None
    assert found[0].startswith(b"24 ")
