import numpy as np
import pytest

from openvis_model.exemplars import (
    CheckedPicture,
    PictureContent,
    PictureExemplar,
    TrackExemplar,
    names_picture,
    parse_exemplar,
    parse_exemplars,
    relative_to,
)


@pytest.mark.parametrize(
    ("text", "exemplar"),
    [
        ("cup.jpg", PictureExemplar("cup.jpg")),
        ("my cups/a: blue one.JPEG", PictureExemplar("my cups/a: blue one.JPEG")),
        ("s3://bucket/a.b/cup.webp", PictureExemplar("s3://bucket/a.b/cup.webp")),
        ("cup.jpg box 1 2 30 40", PictureExemplar("cup.jpg", (1, 2, 30, 40))),
        ("cup.jpg box 1,2, 30,40", PictureExemplar("cup.jpg", (1, 2, 30, 40))),
        ("cup.jpg mask cup mask.png", PictureExemplar("cup.jpg", mask="cup mask.png")),
        ("track: a-7/3", TrackExemplar("a-7", 3)),
        ("track:a-7/3 of old labels/", TrackExemplar("a-7", 3, "old labels/")),
    ],
)
def test_exemplars_are_read_and_written(text: str, exemplar: PictureExemplar | TrackExemplar) -> None:
    assert parse_exemplar(f" {text} ") == exemplar
    assert parse_exemplar(str(exemplar)) == exemplar


def test_commas_separate_exemplars_but_not_the_numbers_of_a_box() -> None:
    for box in ("10 20, 200 180", "10,20 200,180", "10, 20, 200 180 "):
        first, second = parse_exemplars(f"a.jpg box {box}, 2.png")
        assert isinstance(first, PictureExemplar)
        assert (first.path, first.box, str(second)) == ("a.jpg", (10, 20, 200, 180), "2.png")
    exemplars = parse_exemplars("a.jpg box 1,2,30,40, 2.png,track: v/1, b.jpg")
    assert [str(each) for each in exemplars] == ["a.jpg box 1 2 30 40", "2.png", "track: v/1", "b.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cup.gif", r"names.txt: line 3: 'cup.gif' is neither a picture .* nor a track .*; correct it, or put a name"),
        ("a new hope", "'a new hope' is neither"),
        ("", "'' is neither"),
        (
            "cup.jpg box 1 2 3",
            "'cup.jpg box 1 2 3': the box is '1 2 3'; write left, top, width and height",
        ),
        ("cup.jpg box -1 2 3 4", "the box is '-1 2 3 4'"),
        ("cup.jpg mask cup.txt", "is neither"),
        ("cup.jpg mask a.png mask b.png", "line 3: 'cup.jpg mask a.png mask b.png': has several masks; draw all"),
        ("track: v", "line 3: 'track: v' names no track; write track: VIDEO_ID/TRACK_ID"),
        ("track: v/x", "names no track"),
    ],
)
def test_what_is_no_exemplar_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_exemplar(text, "names.txt: line 3")


def test_names_that_look_like_pictures() -> None:
    assert all(map(names_picture, ("cup.jpg", " a/cup.PNG ", "cup.jpg box 1 2 3 4", "cup.webp mask b.png")))
    assert not any(map(names_picture, ("cup", "St. Bernard", "jpg", "node.js", "mp3 player")))


@pytest.mark.parametrize(
    ("path", "file", "full"),
    [
        ("a.jpg", "/data/names.txt", "/data/a.jpg"),
        ("../b/a.jpg", "/data/x/names.txt", "/data/b/a.jpg"),
        ("/c/a.jpg", "/data/names.txt", "/c/a.jpg"),
        ("a.jpg", "s3://bucket/names.txt", "s3://bucket/a.jpg"),
        ("../b/a.jpg", "s3://bucket/x/names.txt", "s3://bucket/b/a.jpg"),
        ("s3://other/a.jpg", "/data/names.txt", "s3://other/a.jpg"),
    ],
)
def test_paths_are_relative_to_the_file(path: str, file: str, full: str) -> None:
    assert relative_to(path, file) == full


def test_a_tilde_is_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert relative_to("~/a.jpg", "s3://bucket/names.txt") == "/home/ann/a.jpg"
    assert relative_to("~/labels/", "/data/names.txt") == "/home/ann/labels/"


def test_paths_are_mapped() -> None:
    assert str(parse_exemplar("a.jpg mask b.png").mapped(str.upper)) == "A.JPG mask B.PNG"
    assert str(parse_exemplar("track: v/1 of a").mapped(str.upper)) == "track: v/1 of A"
    assert str(parse_exemplar("track: v/1").mapped(str.upper)) == "track: v/1"


def test_digests_are_those_of_the_content() -> None:
    content = PictureContent(np.zeros((1, 1, 3), np.uint8), None, "abc")
    assert PictureExemplar("a.jpg", content=CheckedPicture("abc", lambda: content)).digest == "abc"
    one, other = (TrackExemplar("v", 1, embedding=np.float32([number, 1])).digest for number in (0, 1))
    assert one != other
    for unread in ("a.jpg", "track: v/1"):
        with pytest.raises(ValueError, match=f"line 2: {unread}: was not read; call read_"):
            _ = parse_exemplar(unread, "line 2").digest
