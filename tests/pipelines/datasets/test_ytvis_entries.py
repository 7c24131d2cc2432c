import pytest

from pipelines.datasets.annotations import AnnotatedVideo, Mask
from pipelines.datasets.ytvis_entries import EntryReader

VIDEO = AnnotatedVideo(id=3, height=2, width=3, length=2)
FULL = {"size": [2, 3], "counts": "06"}


def test_what_is_odd_is_refused_or_counted() -> None:
    with pytest.raises(ValueError, match="a.json: entry 1 is odd; change it"):
        EntryReader("a.json", strict=True).odd("entry 1", "is odd", "change it", "odd entries")
    reader = EntryReader("a.json", strict=False)
    for _ in range(2):
        reader.odd("entry 1", "is odd", "change it", "odd entries")
    assert reader.warnings == {"odd entries": 2}


def test_values_have_their_types() -> None:
    reader = EntryReader("a.json", strict=False)
    assert reader.value("entry 1", {"score": 1}, "score", float) == 1
    for entry, message in [
        ({"score": True}, "has 'score' True; give a number"),
        ({"score": "1"}, "has 'score' '1'; give a number"),
        ({}, "has no 'score'; add it"),
        ([], "is []; give an object"),
    ]:
        with pytest.raises(ValueError, match="a.json: entry 1 ") as error:
            reader.value("entry 1", entry, "score", float)
        assert message in str(error.value)


def test_ids_are_unique() -> None:
    reader = EntryReader("a.json", strict=False)
    reader.check_unique("video", [3, 1, 2])
    with pytest.raises(ValueError, match="a.json: video id 1 occurs more than once"):
        reader.check_unique("video", [3, 1, 1])


def test_equal_tracks_have_their_masks_once() -> None:
    """Models give a track several labels; scoring looks at masks that are one object once."""
    reader = EntryReader("a.json", strict=True)
    first, second, third = (
        reader.masks("entry", {"segmentations": its}, VIDEO, polygons=False)
        for its in ([dict(FULL), None], [dict(FULL), None], [None, dict(FULL)])
    )
    assert first is second
    assert (first, third) == ((Mask(2, 3, b"06"), None), (None, Mask(2, 3, b"06")))


def test_a_corrupt_mask_is_named() -> None:
    reader = EntryReader("a.json", strict=False)
    sound, corrupt = Mask(2, 3, b"06"), Mask(2, 3, b"07")
    reader.check_masks([("entry 0", (sound, None)), ("entry 1", (None, sound))])
    with pytest.raises(ValueError, match="a.json: entry 1, frame 2, counts must be runs with the sum 2 . 3"):
        reader.check_masks([("entry 0", (sound, None)), ("entry 1", (None, sound, corrupt))])


def test_problems_are_collected_instead() -> None:
    problems: list[str] = []
    reader = EntryReader("a.json", strict=True, problems=problems)
    assert reader.read_each([1, "x", 3], lambda i, entry: reader.value(f"entry {i}", {"n": entry}, "n", int)) == (1, 3)
    reader.check_unique("video", [3, 1, 1, 3])
    good, bad = Mask(2, 3, b"06"), Mask(2, 3, b"a")
    assert reader.check_masks([("track 1", (good,)), ("track 2", (None, bad, bad)), ("track 3", (bad,))]) == [
        True,
        False,
        False,
    ]
    starts = ["entry 1 has 'n' 'x'", "video id 3 occurs", "video id 1 occurs", "track 2, frame 1,", "track 3, frame 0,"]
    for problem, start in zip(problems, starts, strict=True):
        assert problem.startswith(f"a.json: {start}")
