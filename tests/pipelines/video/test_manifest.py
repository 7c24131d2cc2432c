"""What `test_sources.py` does not ask of manifests: videos on the web."""

from pathlib import Path

import pytest

from pipelines.video.sources import find_videos


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
