from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipelines.archive.export import ExportSummary
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.pipelines.archive.exports import SEEN, export, put
from tests.pipelines.archive.labels import part_name


def test_cvat_has_a_file_per_video(labels: str, tmp_path: Path) -> None:
    losses = ("boxes without masks: 4 tracks (b-2/0, b-2/2, a/0, …)",)
    assert export(labels, tmp_path / "out", "cvat") == ExportSummary(videos=2, tracks=4, losses=losses)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.xml", "b-2.xml"]
    root = ElementTree.parse(tmp_path / "out/a.xml").getroot()  # noqa: S314 - our own
    assert root.findtext("version") == "1.1"
    assert root.findtext("meta/task/size") == "10"
    assert [label.text for label in root.iterfind("meta/task/labels/label/name")] == ["moon", "ring & disc", "star"]
    boxes = {
        track.get("label"): [(int(b.get("frame", "")), b.get("outside"), b.get("xtl"), b.get("ybr")) for b in track]
        for track in root.iterfind("track")
    }
    assert boxes == {
        "star": [(0, "0", "0", "2"), (3, "0", "1", "2"), (6, "0", "2", "2"), (9, "1", "2", "2")],
        # Out of sight in frame 6, and seen until the last frame, behind which there is none to say it is outside.
        "ring & disc": [(3, "0", "1", "3"), (6, "1", "1", "3"), (9, "0", "3", "3")],
    }


@pytest.mark.parametrize(
    ("fps", "duration_s", "looked_at"),
    [
        (24.0, 2.0, (0, 5, 10, 15, 20, 24, 29, 34, 39, 44)),  # 5 a second
        (29.97, 1.0, (0, 6, 12, 18, 24)),
        (30.0, 1.0, (0, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 14, 15, 16, 17, 18, 20, 21, 22, 23, 24, 26, 27, 28, 29)),
        (10.0, 1.01, tuple(range(10))),  # each; the file says that it is a little longer
    ],
)
def test_in_cvat_a_track_that_is_always_seen_is_never_outside(
    fps: float, duration_s: float, looked_at: tuple[int, ...], tmp_path: Path
) -> None:
    results = Results(Storage(str(tmp_path / "labels")))
    gap = looked_at[:3] + looked_at[5:]
    videos = {"a": {0: ("star", 0.9, looked_at), 1: ("moon", 0.9, gap)}}
    put(results, part_name(1), videos, fps=fps, duration_s=duration_s, expected_frames=len(looked_at))
    export(results.storage.root, tmp_path / "out", "cvat")
    root = ElementTree.parse(tmp_path / "out/a.xml").getroot()  # noqa: S314 - our own
    always, hidden = (
        {int(box.get("frame", "")): box.get("outside") for box in track} for track in root.iterfind("track")
    )
    assert always == dict.fromkeys(looked_at, "0")
    (outside,) = [frame for frame, value in hidden.items() if value == "1"]
    assert looked_at[2] < outside <= looked_at[4]
    assert hidden.keys() - {outside} == set(gap)


def boxes_of(file: Path) -> list[dict[int, str]]:
    """Of each track, whether it is outside, by frame."""
    root = ElementTree.parse(file).getroot()  # noqa: S314 - our own
    return [{int(box.get("frame", "")): box.get("outside", "") for box in track} for track in root.iterfind("track")]


@pytest.mark.parametrize("expected_frames", [40, 39])
def test_in_cvat_a_track_is_outside_where_only_others_are_seen(expected_frames: int, tmp_path: Path) -> None:
    """At a variable frame rate: 20 frames of 20 ms, then 20 of 180 ms; a pause in the dense part is short."""
    results = Results(Storage(str(tmp_path / "labels")))
    pausing = tuple(frame for frame in range(40) if not 4 <= frame <= 8)
    videos = {"a": {0: ("star", 0.9, tuple(range(40))), 1: ("moon", 0.9, pausing)}}
    times = [*(0.02 * frame for frame in range(20)), *(0.4 + 0.18 * frame for frame in range(20))]
    put(results, part_name(1), videos, times, fps=10.0, duration_s=4.0, expected_frames=expected_frames)
    export(results.storage.root, tmp_path / "out", "cvat")
    always, paused = boxes_of(tmp_path / "out/a.xml")
    assert always == dict.fromkeys(range(40), "0")
    assert paused == dict.fromkeys(pausing, "0") | {4: "1"}


def test_files_of_an_earlier_export_do_not_stay(labels: str, tmp_path: Path) -> None:
    export(labels, tmp_path / "out", "cvat")
    (tmp_path / "out/notes.xml").write_text("mine")
    assert export(labels, tmp_path / "out", "cvat", min_score=0.8).videos == 1
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.xml", "notes.xml"]


def imported(file: Path) -> dict[tuple[str, int], list[float]]:
    """Boxes by label and frame, as CVAT's importer (`load_anno`) and its `TrackManager` make them of a file.

    The label must be one of the task, a frame one of its frames, a track must begin with a key frame that is a box;
    boxes between two key frames are interpolated, unless the first is outside. The last one lasts until the end.
    """
    root = ElementTree.parse(file).getroot()  # noqa: S314 - our own
    stop = int(root.findtext("meta/task/stop_frame", ""))
    labels = {label.text for label in root.iterfind("meta/task/labels/label/name")}
    found = {}
    for track in root.iterfind("track"):
        label = track.attrib["label"]
        assert label in labels
        shapes = []
        for box in track:
            assert (box.tag, box.get("keyframe")) == ("box", "1")
            corners = [float(box.attrib[side]) for side in ("xtl", "ytl", "xbr", "ybr")]
            shapes.append((int(box.attrib["frame"]), box.attrib.get("outside", "0") == "1", corners))
        assert shapes[0][0] >= 0
        assert all(first[0] < second[0] for first, second in pairwise(shapes))
        assert shapes[-1][0] <= stop
        for (frame, outside, start), (later, _, end) in pairwise([*shapes, (stop + 1, True, shapes[-1][2])]):
            for at in range(frame, later) if not outside else ():
                share = (at - frame) / (later - frame)
                found[label, at] = [a + (b - a) * share for a, b in zip(start, end, strict=True)]
    return found


def test_cvat_shows_each_box_where_its_mask_is(labels: str, tmp_path: Path) -> None:
    export(labels, tmp_path / "out", "cvat")
    for video in ("a", "b-2"):
        boxes = imported(tmp_path / f"out/{video}.xml")
        looked_at = {key: box for key, box in boxes.items() if key[1] % 3 == 0}
        assert looked_at == {
            (name, frame): [frame // 3, track, frame // 3 + 3, track + 2]
            for track, (name, _, frames) in SEEN[video].items()
            for frame in frames
        }
        assert {frame for name, frame in boxes if name == "star"} == (set(range(9)) if video == "a" else {0, 1, 2})
