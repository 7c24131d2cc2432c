import errno
import itertools
import os
from pathlib import Path

import pytest

from pipelines.video.names import list_images
from pipelines.video.sources import find_videos
from tests.pipelines.storage.put import Put
from tests.pipelines.storage.s3_server import Proxy, fill
from tests.pipelines.video.finding import found, only, touch


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for name in ("b.MP4", "a/clip.mkv", "a/clip.mp4", "c/clip.mp4", "c/notes.txt", "c/.hidden.mp4", ".trash/old.mp4"):
        touch(tmp_path / name)
    touch(tmp_path / "c" / "clip.jpg")  # a thumbnail, not a frame
    touch(tmp_path / "junk.webm", b"")
    for i in (1, 2, 10):
        touch(tmp_path / "frames" / "one" / f"{i}.png")
        touch(tmp_path / "frames" / "two" / f"{i}.JPG")
    return tmp_path


def test_a_folder_is_searched(archive: Path) -> None:
    expected = ["a/clip.mkv", "a/clip.mp4", "b.MP4", "c/clip.mp4", "frames/one", "frames/two", "junk.webm"]
    assert found(archive, archive) == expected


def test_a_glob_a_file_and_a_frame_folder(archive: Path) -> None:
    assert found(archive / "*" / "*.mp4", archive) == ["a/clip.mp4", "c/clip.mp4"]
    assert found(archive / "**" / "clip.*", archive) == ["a/clip.mkv", "a/clip.mp4", "c/clip.mp4"]
    assert found(archive / "frames" / "*", archive) == ["frames/one", "frames/two"]
    assert found(archive / "b.MP4", archive) == ["b.MP4"]
    assert found(f"file://{archive}/b.MP4", archive) == ["b.MP4"]
    assert found(archive / "frames" / "one", archive) == ["frames/one"]


def test_a_relative_source_gives_absolute_uris(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absolute = list(find_videos(str(archive)))
    monkeypatch.chdir(archive)
    assert list(find_videos(".")) == absolute
    assert all(os.path.isabs(video.uri) for video in absolute)


def test_links_are_followed_but_not_in_circles(archive: Path) -> None:
    (archive / "a" / "up").symlink_to(archive)
    (archive / "a" / "c").symlink_to(archive / "c")
    files = found(archive / "a", archive / "a")
    assert "c/clip.mp4" in files
    assert len(files) == len({(archive / "a" / file).resolve() for file in files})


def test_a_folder_that_many_links_lead_to_is_visited_once(tmp_path: Path) -> None:
    """Seven folders with links to each other have 13,700 paths without a circle."""
    folders = [tmp_path / f"f{i}" for i in range(7)]
    for folder in folders:
        touch(folder / "a.mp4")
    for folder, other in itertools.permutations(folders, 2):
        (folder / other.name).symlink_to(other)
    assert len(list(find_videos(str(tmp_path)))) == 7


def test_what_cannot_be_listed_or_named_does_not_stop_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path / "good.mp4")
    touch(tmp_path / "lost+found/hidden.mp4")
    with open(os.fsencode(tmp_path) + b"/caf\xe9.mp4", "w"):
        pass
    listdir = os.listdir

    def deny(path: str) -> list[str]:
        if path.endswith("lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", deny)
    assert found(tmp_path, tmp_path) == ["good.mp4"]
    assert caplog.messages == [
        f"input: {tmp_path}/caf\\xe9.mp4 is left out: its name is not UTF-8; rename it",
        f"input: {tmp_path}/lost+found is left out: Permission denied",
    ]
    with pytest.raises(ValueError, match=r"lost\+found: Permission denied; choose a folder that can be read"):
        list(find_videos(str(tmp_path / "lost+found")))


def test_odd_paths_do_not_stop_the_rest(tmp_path: Path) -> None:
    """A link to itself, a file in a file, a name that is too long: each fails on its own when it is read."""
    touch(tmp_path / "good.mp4")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    assert found(tmp_path, tmp_path) == ["good.mp4", "loop.mp4"]
    manifest = tmp_path / "videos.csv"
    manifest.write_text(f"uri\ngood.mp4\ngood.mp4/x.mp4\n{'x' * 300}.mp4\n")
    assert len(list(find_videos(str(manifest)))) == 3


def test_a_glob_goes_through_each_link_once(tmp_path: Path) -> None:
    touch(tmp_path / "a/clip.mp4")
    (tmp_path / "a/up").symlink_to(tmp_path / "a")
    assert found(tmp_path / "**/*.mp4", tmp_path) == ["a/clip.mp4"]


def test_the_path_of_a_folder_goes_before_links_to_it(tmp_path: Path) -> None:
    touch(tmp_path / "z/clip.mp4")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    assert found(tmp_path, tmp_path) == ["z/clip.mp4"]


def test_a_source_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.mp4", "w"):
        pass
    with pytest.raises(ValueError, match=r"caf\\xe9.mp4: its name is not UTF-8; rename it"):
        list(find_videos(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")))


def test_animated_webp_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "a.webp")
    with pytest.raises(ValueError, match="a.webp: animated WebP cannot be decoded; convert it to GIF or MP4"):
        list(find_videos(str(tmp_path / "a.webp")))


def test_images_sort_naturally(tmp_path: Path) -> None:
    names = ["9.png", "10.png", "a1b2.png", "a1b10.png", "x01.jpg", "x1.jpg"]
    for name in reversed(names):
        touch(tmp_path / name)
    assert list_images(str(tmp_path)) == names


def test_ids_do_not_collide_and_do_not_change(archive: Path) -> None:
    videos = list(find_videos(str(archive)))
    assert videos == list(find_videos(str(archive)))
    assert len({video.video_id for video in videos}) == len(videos)
    assert [video.video_id.rpartition("-")[0] for video in videos[:3]] == ["clip", "clip", "b"]
    assert only(archive / "a" / "clip.mp4") in videos


def test_changed_content_is_another_video(archive: Path) -> None:
    file = archive / "a" / "clip.mp4"
    states = [only(file)]
    file.write_bytes(b"longer")
    states.append(only(file))
    os.utime(file, ns=(0, 0))
    states.append(only(file))
    folder = archive / "frames" / "one"
    states.append(only(folder))
    os.utime(folder / "2.png", ns=(0, 0))
    states.append(only(folder))
    (folder / "2.png").rename(folder / "3.png")
    states.append(only(folder))
    for one, other in itertools.combinations(states, 2):
        assert one.video_id != other.video_id


def test_slugs(tmp_path: Path) -> None:
    assert only(touch(tmp_path / "My holiday (2024) é.final.mp4")).video_id.startswith("My-holiday-2024-final-")
    assert only(touch(tmp_path / "日本.mp4")).video_id.startswith("video-")
    assert len(only(touch(tmp_path / f"{'x' * 200}.mp4")).video_id) == 48 + 1 + 12


def test_bad_sources(tmp_path: Path) -> None:
    touch(tmp_path / "notes.txt")
    for source, message in {
        "": "input: the path does not exist",
        f"{tmp_path}/none": "input: .*none does not exist",
        f"{tmp_path}": "input: no videos in .*known extensions are .3g2",
        f"{tmp_path}/*.mp4": "input: no videos in",
        f"{tmp_path}/notes.txt": "input: .*neither a video nor a manifest",
        "ftp://bucket/videos": "input: ftp://bucket/videos: only local",
    }.items():
        with pytest.raises(ValueError, match=message):
            list(find_videos(source))


def test_videos_are_found_one_by_one(archive: Path) -> None:
    videos = find_videos(str(archive))
    first = next(videos)
    (archive / "z.mp4").write_bytes(b"late")
    assert first.uri.endswith("a/clip.mkv")


def on_s3(source: str, bucket: str) -> list[str]:
    return [video.uri.removeprefix(f"{bucket}/") for video in find_videos(source)]


def test_a_prefix_on_s3(bucket: str, proxy: Proxy) -> None:
    """Two pages of videos are two requests; the first video needs no more than the first page."""
    fill(
        bucket,
        [*(f"in/a/{number:04}.mp4" for number in range(1500)), "in/b c%20d+é?#.MKV", "in/notes.txt", "inn/x.mp4"],
    )
    uris = on_s3(f"{bucket}/in/", bucket)
    assert uris == [*(f"in/a/{number:04}.mp4" for number in range(1500)), "in/b c%20d+é?#.MKV"]
    pages = set(proxy.requests)  # one that is not answered soon is sent again
    assert [method for method, _ in pages] == ["GET", "GET"]
    proxy.requests.clear()
    next(find_videos(f"{bucket}/in/"))
    assert len(set(proxy.requests)) == 1
    assert on_s3(f"{bucket}/in", bucket) == uris
    assert len(on_s3(bucket, bucket)) == 1502


def test_an_object_and_a_glob_on_s3(bucket: str) -> None:
    fill(bucket, ["a/1.mp4", "a/[1]*.mp4", "a/b/2.mp4", "a/notes.txt"])
    assert on_s3(f"{bucket}/a/[1]*.mp4", bucket) == ["a/[1]*.mp4"]
    assert on_s3(f"{bucket}/a/1*.mp4", bucket) == ["a/1.mp4"]
    assert on_s3(f"{bucket}/**/?.mp4", bucket) == ["a/1.mp4", "a/b/2.mp4"]
    with pytest.raises(ValueError, match="input: s3://.*a/notes.txt is neither a video nor a manifest"):
        list(find_videos(f"{bucket}/a/notes.txt"))
    with pytest.raises(ValueError, match="input: no videos in s3://.*/gone"):
        list(find_videos(f"{bucket}/gone"))
    with pytest.raises(ValueError, match="input: s3://no-such-bucket/a/: there is no such bucket; check its name"):
        list(find_videos("s3://no-such-bucket/a"))


def test_ids_on_s3(bucket: str, put: Put) -> None:
    """They follow from URI and content alone."""
    put(f"{bucket}/a/clip one.mp4", b"one")
    (first,) = find_videos(f"{bucket}/a")
    assert first.video_id.startswith("clip-one-")
    assert first == only(f"{bucket}/a/clip one.mp4")
    put(f"{bucket}/a/clip one.mp4", b"two")
    second = only(f"{bucket}/a")
    put(f"{bucket}/a/clip one.mp4", b"one")
    assert only(f"{bucket}/a") == first
    put(f"{bucket}/b/clip one.mp4", b"one")
    third = only(f"{bucket}/b")
    assert len({video.video_id for video in (first, second, third)}) == 3
    assert len({video.version for video in (first, second)}) == 2
