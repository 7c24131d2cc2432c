import pytest

from pipelines.video.cloud_sources import find_in_prefix, list_frames
from tests.pipelines.storage.put import Put
from tests.pipelines.storage.s3_server import fill

ARCHIVE = (
    ".trash/old.mp4",
    "a-b.mp4",
    "a/clip.mkv",
    "a/clip.mp4",
    "b.MP4",
    "c/.hidden.mp4",
    "c/clip.jpg",  # a thumbnail, not a frame
    "c/clip.mp4",
    "c/notes.txt",
    "frames/",
    "frames/one/1.png",
    "frames/one/10.png",
    "frames/one/2.png",
    "frames/one/sub/x.mp4",
    "frames/one/z.png",
    "frames/two/.1.png",
    "frames/two/1.JPG",
)


def found(source: str, bucket: str) -> list[str]:
    return [each.uri.removeprefix(f"{bucket}/") for each in find_in_prefix(source)]


@pytest.fixture
def archive(bucket: str) -> str:
    fill(bucket, ARCHIVE)
    return bucket


def test_a_prefix_is_searched(archive: str) -> None:
    """Frames end where their folder does, whatever lies between them; as locally an image of a folder with videos is
    no frame."""
    videos = ["a-b.mp4", "a/clip.mkv", "a/clip.mp4", "b.MP4", "c/clip.mp4", "frames/one/sub/x.mp4"]
    assert found(archive, archive) == [*videos, "frames/one/", "frames/two/"]
    assert found(f"{archive}/frames/one", archive) == ["frames/one/sub/x.mp4", "frames/one/"]
    assert found(f"{archive}/frames/on", archive) == []
    assert found(f"{archive}/.trash/", archive) == [".trash/old.mp4"]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*/*.mp4", ["a/clip.mp4", "c/clip.mp4"]),
        ("**/clip.*", ["a/clip.mkv", "a/clip.mp4", "c/clip.mp4"]),
        ("frames/*", ["frames/one/", "frames/two/"]),
        ("frames/o*", ["frames/one/"]),
        ("frames/*/", ["frames/one/", "frames/two/"]),
        ("a*", ["a-b.mp4"]),
        ("[ab]*.[mM]*", ["a-b.mp4", "b.MP4"]),
        ("**", ["a-b.mp4", "a/clip.mkv", "a/clip.mp4", "b.MP4", "c/clip.mp4", "frames/one/sub/x.mp4"]),
        ("*/old.mp4", []),
        (".t*/old.mp4", [".trash/old.mp4"]),
        ("?.MP4", ["b.MP4"]),
    ],
)
def test_globs(archive: str, glob: str, expected: list[str]) -> None:
    assert [uri for uri in found(f"{archive}/{glob}", archive) if glob != "**" or not uri.endswith("/")] == expected


def test_frames_are_in_natural_order(archive: str) -> None:
    frames = list_frames(f"{archive}/frames/one/")
    assert [image.uri.rpartition("/")[2] for image in frames] == ["1.png", "2.png", "10.png", "z.png"]


def test_a_folder_of_frames_changes_with_each_of_them(bucket: str, put: Put) -> None:
    seen = []
    for key, content in (("f/1.png", b"a"), ("f/2.png", b"b"), ("f/2.png", b"c"), ("g/1.png", b"a")):
        put(f"{bucket}/{key}", content)
        seen += [(each.etag, each.size) for each in find_in_prefix(bucket) if key in f"{each.uri}{key[2:]}"]
    assert [size for _, size in seen] == [1, 2, 2, 1]
    assert len({etag for etag, _ in seen}) == 4
