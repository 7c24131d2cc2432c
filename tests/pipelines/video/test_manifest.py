from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.video import sources
from pipelines.video.sources import Video, find_videos
from tests.pipelines.storage.put import Put
from tests.pipelines.storage.s3_server import Proxy
from tests.pipelines.video.finding import found, only, touch


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_manifests(tmp_path: Path, suffix: str) -> None:
    for name in ("a/clip.mp4", "b.MP4"):
        touch(tmp_path / name)
    manifest = tmp_path / f"list.{suffix}"
    rows = [
        {"uri": "b.MP4", "note": 1, "video_id": "007"},
        {"uri": str(tmp_path / "a" / "clip.mp4"), "note": 2, "video_id": None},
        {"uri": "gone.mp4", "note": 3, "video_id": None},
    ]
    if suffix == "csv":
        manifest.write_text("".join(f"{row['uri']},{row['note']},{row['video_id'] or ''}\n" for row in rows))
        manifest.write_text("uri,note,video_id\n" + manifest.read_text())
    elif suffix == "jsonl":
        manifest.write_text(
            f'{{"uri": "b.MP4", "note": {{"x": [1]}}, "video_id": "007"}}\n'
            f'{{"uri": "{tmp_path}/a/clip.mp4"}}\n{{"uri": "gone.mp4", "video_id": null}}\n'
        )
    else:
        pq.write_table(pa.Table.from_pylist(rows), manifest)
    first, second, third = find_videos(str(manifest))
    assert first == Video(video_id="007", uri=str(tmp_path / "b.MP4"))
    assert second == only(tmp_path / "a" / "clip.mp4")
    assert third.uri == str(tmp_path / "gone.mp4")
    assert third.video_id.startswith("gone-")
    assert found(manifest, tmp_path) == ["b.MP4", "a/clip.mp4", "gone.mp4"]


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


@pytest.mark.parametrize("again", range(5))
def test_a_video_that_was_long_ago_is_still_known(again: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_RECENT", 2)
    (tmp_path / "list.csv").write_text("uri\n" + "".join(f"{number}.mp4\n" for number in [*range(5), again]))
    with pytest.raises(ValueError, match=f"row 6: uri .*/{again}.mp4 is given twice"):
        list(find_videos(str(tmp_path / "list.csv")))


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


def test_videos_on_the_web_are_found_without_asking_anyone(tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text(
        "uri,video_id\nhttps://nowhere.invalid/a%20b/Street.mp4?key=1,\nHTTP://host/x,mine\nlocal.mp4,\n"
    )
    first, second, local = find_videos(str(manifest), allow_http=True)
    assert first.uri == "https://nowhere.invalid/a%20b/Street.mp4?key=1"
    assert first.video_id.startswith("Street-")
    assert (second.video_id, second.uri) == ("mine", "HTTP://host/x")
    assert local.uri == str(tmp_path / "local.mp4")
    assert next(find_videos(str(manifest), allow_http=True)) == first


def test_the_web_has_to_be_allowed(tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("uri\nlocal.mp4\nhttps://host/a.mp4\n")
    message = "list.csv row 2: https://host/a.mp4: is on the web; download it, or give --allow_http true"
    with pytest.raises(ValueError, match=message):
        list(find_videos(str(manifest)))


def test_the_input_itself_is_not_on_the_web() -> None:
    with pytest.raises(ValueError, match="input: https://host/a.mp4: is on the web; name it in a manifest, and give"):
        list(find_videos("https://host/a.mp4", allow_http=True))


@pytest.mark.parametrize("uri", ["https://user:secret@host/a.mp4", "https:///a.mp4", "http://host:port/a.mp4"])
def test_bad_addresses_are_named(tmp_path: Path, uri: str) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"uri\n{uri}\n")
    with pytest.raises(ValueError, match=r"list.csv row 1: https?:.*: (has a user name|is not a web address)"):
        list(find_videos(str(manifest), allow_http=True))
