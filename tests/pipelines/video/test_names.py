from pathlib import Path

import pytest

from pipelines.video.names import is_image, is_video, local_path, natural_key, suffix


@pytest.mark.parametrize(
    ("name", "video", "image"),
    [
        ("a.mp4", True, False),
        ("A.MP4", True, False),
        ("a.b.webm", True, False),
        ("a.JPG", False, True),
        ("a.png", False, True),
        (".a.mp4", False, False),
        (".a.png", False, False),
        ("mp4", False, False),
        ("a.mp4.part", False, False),
        ("", False, False),
    ],
)
def test_names(name: str, video: bool, image: bool) -> None:
    assert (is_video(name), is_image(name)) == (video, image)


def test_suffixes() -> None:
    assert [suffix(path) for path in ("a/b.MP4", "a.d/b", "a.tar.GZ")] == [".mp4", "", ".gz"]


def test_natural_order() -> None:
    names = ["x1.jpg", "a1b10.png", "10.png", "x01.jpg", "9.png", "a1b2.png"]
    expected = ["9.png", "10.png", "a1b2.png", "a1b10.png", "x01.jpg", "x1.jpg"]
    assert sorted(names, key=natural_key) == expected


def test_digits_of_other_scripts_are_text() -> None:
    names = ["\u00b21.png", "\u06631.png", "1.png", "2.png"]
    assert sorted(names, key=natural_key) == ["1.png", "2.png", "\u00b21.png", "\u06631.png"]


@pytest.mark.parametrize("name", ["a.mp4", "über 100%.mp4", "a#b?c.mp4"])
def test_uris_of_local_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert local_path(str(path)) == str(path)
    assert local_path(path.as_uri()) == str(path)
