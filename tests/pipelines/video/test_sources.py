import errno
import itertools
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.video import sources
from pipelines.video.names import list_images
from pipelines.video.sources import Video, find_videos
from tests.pipelines.storage.put import Put
from tests.pipelines.storage.s3_server import Proxy, fill


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def found(source: object, relative_to: Path) -> list[str]:
    return [os.path.relpath(video.uri, relative_to) for video in find_videos(str(source))]


def only(source: object) -> Video:
    (video,) = find_videos(str(source))
    return video


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


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_manifests(archive: Path, suffix: str) -> None:
    manifest = archive / f"list.{suffix}"
    rows = [
        {"uri": "b.MP4", "note": 1, "video_id": "007"},
        {"uri": str(archive / "a" / "clip.mp4"), "note": 2, "video_id": None},
        {"uri": "gone.mp4", "note": 3, "video_id": None},
    ]
    if suffix == "csv":
        manifest.write_text("".join(f"{row['uri']},{row['note']},{row['video_id'] or ''}\n" for row in rows))
        manifest.write_text("uri,note,video_id\n" + manifest.read_text())
    elif suffix == "jsonl":
        manifest.write_text(
            f'{{"uri": "b.MP4", "note": {{"x": [1]}}, "video_id": "007"}}\n'
            f'{{"uri": "{archive}/a/clip.mp4"}}\n{{"uri": "gone.mp4", "video_id": null}}\n'
        )
    else:
        pq.write_table(pa.Table.from_pylist(rows), manifest)
    first, second, third = find_videos(str(manifest))
    assert first == Video(video_id="007", uri=str(archive / "b.MP4"))
    assert second == only(archive / "a" / "clip.mp4")
    assert third.uri == str(archive / "gone.mp4")
    assert third.video_id.startswith("gone-")
    assert found(manifest, archive) == ["b.MP4", "a/clip.mp4", "gone.mp4"]


@pytest.mark.parametrize("video_id", ["NA", "null", "nan", "N-A", "007"])
def test_ids_in_csv_are_texts(video_id: str, tmp_path: Path) -> None:
    manifest = touch(tmp_path / "list.csv", f"uri,video_id\na.mp4,{video_id}\n".encode())
    assert [video.video_id for video in find_videos(str(manifest))] == [video_id]


def test_file_uris_are_escaped_and_paths_are_not(tmp_path: Path) -> None:
    first, second = touch(tmp_path / "a b%20.mp4"), touch(tmp_path / "c%20d.mp4")
    manifest = touch(tmp_path / "list.csv", f"uri\n{first.as_uri()}\n{second}\n".encode())
    assert [video.uri for video in find_videos(str(manifest))] == [str(first), str(second)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_manifest_in_another_encoding_is_named(encoding: str, tmp_path: Path) -> None:
    manifest = touch(tmp_path / "list.csv", "uri\ncafé.mp4\n".encode(encoding))
    with pytest.raises(ValueError, match=r"list\.csv: .*; "):
        list(find_videos(str(manifest)))


def test_a_parquet_manifest_may_hold_numbers_as_ids(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": ["a.mp4"], "video_id": [7]}), tmp_path / "list.parquet")
    assert only(tmp_path / "list.parquet").video_id == "7"


def test_a_jsonl_manifest_may_hold_numbers_as_ids(tmp_path: Path) -> None:
    lines = b'{"uri": "c.mp4"}\n{"uri": "a.mp4", "video_id": 7}\n{"video_id": 0, "uri": "b.mp4"}\n'
    manifest = touch(tmp_path / "list.jsonl", lines)
    made, *given = (video.video_id for video in find_videos(str(manifest)))
    assert made.startswith("c-")
    assert given == ["7", "0"]


def test_file_uris_may_name_this_machine_and_no_other(tmp_path: Path) -> None:
    clip = touch(tmp_path / "a b.mp4")
    assert only(f"file://localhost{tmp_path}/a%20b.mp4").uri == str(clip)
    manifest = touch(tmp_path / "list.csv", b"uri\nfile://nas/a.mp4\n")
    with pytest.raises(ValueError, match="row 1: file://nas/a.mp4: is on another machine, nas; mount it"):
        list(find_videos(str(manifest)))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"uri": [b"a.mp4"]}, "column uri holds binary; write texts"),
        ({"uri": [["a.mp4"]]}, "column uri holds list<.*>; write texts"),
        ({"uri": [1]}, "column uri holds int64; write texts"),
        ({"uri": ["a.mp4"], "video_id": [1.5]}, "column video_id holds double; write texts"),
        ({"uri": ["a.mp4"], "video_id": [{"a": 1}]}, "column video_id holds struct<.*>; write texts"),
    ],
)
def test_a_parquet_manifest_holds_texts(column: dict[str, list[object]], message: str, tmp_path: Path) -> None:
    """A list or bytes would become the name of a file that is missing."""
    pq.write_table(pa.table(column), tmp_path / "list.parquet")
    with pytest.raises(ValueError, match=rf"list\.parquet: {message}"):
        list(find_videos(str(tmp_path / "list.parquet")))


def test_texts_of_parquet_manifests_may_be_stored_in_any_way(tmp_path: Path) -> None:
    texts = pa.array(["a.mp4"])
    for kind in (texts.dictionary_encode(), texts.cast(pa.large_string()), texts.cast(pa.string_view())):
        pq.write_table(pa.table({"uri": kind}), tmp_path / "list.parquet")
        assert only(tmp_path / "list.parquet").uri == str(tmp_path / "a.mp4")


BAD_MANIFESTS = {
    "column twice": ("csv", "uri,uri\na.mp4,b.mp4\n", "list.csv: has 2 columns uri; keep one of them"),
    "not an object": ("jsonl", '["a.mp4"]\n', "list.jsonl: cannot be read .* in row 0"),
    "another kind later": ("jsonl", '{"uri": "a"}\n{"uri": {}}\n', "list.jsonl: cannot be read .* in row 1"),
    "ids of two kinds": (
        "jsonl",
        '{"uri": "a", "video_id": 1}\n{"uri": "b", "video_id": "x"}\n',
        "list.jsonl: cannot be read .*video_id.* in row 1",
    ),
    "id with a fraction": ("jsonl", '{"uri": "a", "video_id": 1.5}\n', "list.jsonl: cannot be read .*video_id"),
    "nested": ("jsonl", '{"uri": ' + "[" * 100_000, "list.jsonl: cannot be read .* in row 0"),
    "no uri column": ("csv", "path,video_id\na.mp4,1\n", "no column uri.*path, video_id"),
    "no uri key": ("jsonl", '{"path": "a.mp4"}\n', "row 1: uri is None"),
    "spaces in header": ("csv", "uri, video_id\na.mp4,1\n", "list.csv: has a column ' video_id'; remove the spaces"),
    "empty uri": ("csv", "uri,video_id\na.mp4,1\n,2\n", "row 2: uri is None"),
    "uri twice": ("csv", "uri\na.mp4\n./a.mp4\n", "row 2: uri .*a.mp4 is given twice"),
    "id twice": ("csv", "uri,video_id\na.mp4,x\nb.mp4,x\n", "row 2: video_id 'x' is given twice"),
    "hidden id": ("csv", "uri,video_id\na.mp4,.x\n", "row 1: video_id is '.x'; use"),
    "path as id": ("csv", "uri,video_id\na.mp4,../x\n", "row 1: video_id is '../x'; use"),
    "long id": ("csv", f"uri,video_id\na.mp4,{'x' * 129}\n", "use 1 to 128"),
    "elsewhere": ("csv", "uri\nftp://bucket/a.mp4\n", "row 1: ftp://bucket/a.mp4: only local"),
    "no bucket": ("csv", "uri,video_id\ns3:///a.mp4,a\n", "s3:///a.mp4: names no bucket"),
    "no key": ("csv", "uri,video_id\ns3://bucket,a\n", "row 1: uri s3://bucket names no object of a bucket"),
    "ragged": ("csv", "uri\na,b\n", "cannot be read"),
    "not json": ("jsonl", '{"uri":', "cannot be read"),
    "not parquet": ("parquet", "uri\na\n", "cannot be read"),
    "empty file": ("csv", "", "list.csv lists no videos; give a row"),
    "empty lines": ("jsonl", "", "list.jsonl lists no videos; give a row"),
    "header only": ("csv", "uri,video_id\n", "list.csv lists no videos; give a row"),
}


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_bad_manifests(tmp_path: Path, name: str) -> None:
    suffix, text, message = BAD_MANIFESTS[name]
    manifest = touch(tmp_path / f"list.{suffix}", text.encode())
    with pytest.raises(ValueError, match=message):
        list(find_videos(str(manifest)))


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


def test_manifests_on_s3_and_of_s3(bucket: str, proxy: Proxy, put: Put, tmp_path: Path) -> None:
    for key in ("in/a b.mp4", "in/deep/c.mp4", "d.mp4", "in/frames/1.png"):
        put(f"{bucket}/{key}", key.encode())
    local = touch(tmp_path / "e.mp4")
    whole = f"{bucket}/in/deep/../deep/c.mp4"
    rows = [
        "a b.mp4",
        whole,
        "./deep//c.mp4",
        "../d.mp4",
        "frames/",
        str(local),
        "gone.mp4",
    ]
    put(f"{bucket}/in/list.csv", "\n".join(["uri", *rows]).encode())
    videos = list(find_videos(f"{bucket}/in/list.csv"))
    assert [video.uri for video in videos] == [
        f"{bucket}/in/a b.mp4",
        f"{bucket}/in/deep/../deep/c.mp4",  # S3 knows no folders
        f"{bucket}/in/deep/c.mp4",
        f"{bucket}/d.mp4",
        f"{bucket}/in/frames/",
        str(local),
        f"{bucket}/in/gone.mp4",
    ]
    assert [bool(video.version) for video in videos] == [True, False, True, True, True, False, False]
    assert videos[0] == only(f"{bucket}/in/a b.mp4")
    assert videos[4] in find_videos(f"{bucket}/in/")
    assert videos[5] == only(local)
    manifest = touch(tmp_path / "list.csv", f"uri,video_id\n{bucket}/in/a b.mp4,a\n".encode())
    proxy.requests.clear()
    assert only(manifest) == Video(video_id="a", uri=f"{bucket}/in/a b.mp4")
    assert proxy.requests == []


def test_manifests_do_not_lead_out_of_a_bucket(bucket: str, put: Put) -> None:
    put(f"{bucket}/in/list.csv", b"uri\n../../other-bucket/a.mp4\n")
    with pytest.raises(
        ValueError, match="list.csv row 1: uri s3://.* names no object of a bucket; give one like s3://"
    ):
        list(find_videos(f"{bucket}/in/list.csv"))


@pytest.mark.parametrize("again", range(5))
def test_a_video_that_was_long_ago_is_still_known(again: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_RECENT", 2)
    (tmp_path / "list.csv").write_text("uri\n" + "".join(f"{number}.mp4\n" for number in [*range(5), again]))
    with pytest.raises(ValueError, match=f"row 6: uri .*/{again}.mp4 is given twice"):
        list(find_videos(str(tmp_path / "list.csv")))
