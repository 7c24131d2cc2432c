import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from pipelines.annotation_export import FILE, ExportConfig, ExportSummary, export_annotations
from pipelines.compaction import CompactConfig, compact, settle
from pipelines.datasets.ytvis import read_ground_truth
from pipelines.lease import hold_lease
from pipelines.parts import Rows
from pipelines.results import Results
from pipelines.storage import Storage
from tests.pipelines.labels import part_name, row

HEIGHT, WIDTH = 6, 8
SEEN = {  # video → track → name, score, frames; every third frame was looked at
    "a": {0: ("star", 0.9, (0, 3, 6)), 1: ("ring & disc", 0.4, (3, 9))},
    "b-2": {0: ("star", 0.5, (0,)), 2: ("moon", 0.1, (3,))},
    "c": {},
}


def dense(track: int, frame: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[track : track + 2, frame // 3 : frame // 3 + 3] = 1
    return mask


@pytest.fixture
def labels(tmp_path: Path) -> str:
    """Two parts: a video of the first was labelled anew, what it had there does not count."""
    results = Results(Storage(str(tmp_path / "labels")))
    put(results, part_name(1), {"a": {7: ("moon", 1.0, (0,))}, "b-2": SEEN["b-2"]})
    put(results, part_name(2), {"a": SEEN["a"], "c": SEEN["c"]})
    return results.storage.root


def put(results: Results, name: str, videos: dict[str, Any], **timing: float) -> None:
    rows = Rows()
    about = {"status": "ok", "width": WIDTH, "height": HEIGHT, "fps": 10.0, "duration_s": 1.0, "expected_frames": 4}
    for video, tracks in videos.items():
        rows.add("videos", [row("videos", video_id=video, uri=f"/videos/{video}.mp4", **(about | timing))])
        for track, (category, score, frames) in tracks.items():
            own = {"video_id": video, "track_id": track}
            rows.add("tracks", [row("tracks", **own, category=category, score=score)])
            for frame in frames:
                rle = coco_mask.encode(np.asfortranarray(dense(track, frame)))
                x, y, width, height = (int(side) for side in coco_mask.toBbox(rle))
                box = {"x": x, "y": y, "width": width, "height": height, "area": width * height}
                rle["counts"] = rle["counts"].decode()
                rows.add(
                    "masks", [row("masks", **own, **box, frame=frame, time_s=frame / timing.get("fps", 10), rle=rle)]
                )
    rows.put(results.storage, name)


def export(labels: str, output: Path, kind: Any, **options: Any) -> ExportSummary:
    return export_annotations(ExportConfig(labels=labels, output=str(output), format=kind, **options))


def test_youtube_vis_is_read_by_our_own_strict_reader(labels: str, tmp_path: Path) -> None:
    assert export(labels, tmp_path / "out", "youtube_vis") == ExportSummary(videos=2, tracks=4)
    truth = read_ground_truth(str(tmp_path / "out" / FILE), strict=True)
    names = {category.id: category.name for category in truth.categories}
    videos = {video.id: video for video in truth.videos}
    assert sorted(names.values()) == ["moon", "ring & disc", "star"]
    assert {video.file_names for video in truth.videos} == {
        ("a/000000.jpg", "a/000003.jpg", "a/000006.jpg", "a/000009.jpg"),
        ("b-2/000000.jpg", "b-2/000003.jpg"),
    }
    found: dict[str, Any] = {}
    for track in truth.tracks:
        files = videos[track.video_id].file_names
        frames = [int(name[-10:-4]) for name, mask in zip(files, track.masks, strict=True) if mask]
        for frame, mask in zip(frames, filter(None, track.masks), strict=True):
            number = {"ring & disc": 1, "moon": 2}.get(names[track.category_id], 0)
            decoded = coco_mask.decode({"size": [mask.height, mask.width], "counts": mask.counts})
            assert (decoded == dense(number, frame)).all()
        found.setdefault(files[0][0], []).append((names[track.category_id], tuple(frames)))
    assert {key: sorted(value) for key, value in found.items()} == {
        "a": [("ring & disc", (3, 9)), ("star", (0, 3, 6))],
        "b": [("moon", (3,)), ("star", (0,))],
    }
    about = {video["video_id"]: video for video in json.loads((tmp_path / "out" / FILE).read_text())["videos"]}
    assert about["a"]["frames"] == [0, 3, 6, 9]
    assert about["a"]["uri"] == "/videos/a.mp4"


def test_coco_is_read_by_pycocotools(labels: str, tmp_path: Path) -> None:
    assert export(labels, tmp_path, "coco", min_score=0.3) == ExportSummary(videos=2, tracks=3)
    coco = COCO(str(tmp_path / FILE))
    assert sorted(category["name"] for category in coco.cats.values()) == ["ring & disc", "star"]
    images = {image["id"]: (image["video_id"], image["frame"]) for image in coco.imgs.values()}
    assert sorted(images.values()) == [("a", 0), ("a", 3), ("a", 6), ("a", 9), ("b-2", 0)]
    found = set()
    for annotation in coco.anns.values():
        video, frame = images[annotation["image_id"]]
        assert (coco.annToMask(annotation) == dense(annotation["track_id"], frame)).all()
        assert annotation["bbox"] == [frame // 3, annotation["track_id"], 3, 2]
        found.add((video, annotation["track_id"], frame, coco.cats[annotation["category_id"]]["name"]))
    assert found == {
        (video, track, frame, name)
        for video, tracks in SEEN.items()
        for track, (name, score, frames) in tracks.items()
        for frame in frames
        if score >= 0.3
    }


def test_cvat_has_a_file_per_video(labels: str, tmp_path: Path) -> None:
    assert export(labels, tmp_path / "out", "cvat") == ExportSummary(videos=2, tracks=4)
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


def test_files_of_an_earlier_export_do_not_stay(labels: str, tmp_path: Path) -> None:
    export(labels, tmp_path / "out", "cvat")
    (tmp_path / "out/notes.xml").write_text("mine")
    assert export(labels, tmp_path / "out", "cvat", min_score=0.8) == ExportSummary(videos=1, tracks=1)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.xml", "notes.xml"]


@pytest.mark.parametrize("kind", ["youtube_vis", "coco", "cvat"])
def test_labels_that_change_meanwhile(labels: str, tmp_path: Path, kind: str) -> None:
    """Parts are merged, and a video gets a name that nothing had."""
    results = Results(Storage(labels))
    calls = []

    def change(done: int, total: int) -> None:
        calls.append((done, total))
        if done == 1:
            put(results, part_name(3), {video: {0: ("comet", 0.7, (0, 3))} for video in SEEN})
            compact(CompactConfig(output=labels))

    config = ExportConfig(labels=labels, output=str(tmp_path / "out"), format=kind)
    assert export_annotations(config, change).videos == 3
    assert calls == [(1, 3), (2, 3), (3, 3)]
    written = "".join(file.read_text() for file in (tmp_path / "out").iterdir())
    assert "comet" in written
    assert "moon" in written  # of the video that had been written


@pytest.mark.usefixtures("as_user")
def test_what_cannot_be_exported_is_named(labels: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^format: unknown value 'voc'; choose from youtube_vis, coco, cvat"):
        export(labels, tmp_path, "voc")
    with pytest.raises(ValueError, match="^min_score: expected 0 to 1, got 2"):
        export(labels, tmp_path, "coco", min_score=2)
    with pytest.raises(ValueError, match="^labels: .*labels has no tracks with a score of 1.0 or more"):
        export(labels, tmp_path / "none", "coco", min_score=1.0)
    with pytest.raises(ValueError, match="^labels: .*absent has no labels"):
        export(str(tmp_path / "absent"), tmp_path / "none", "coco")
    assert not (tmp_path / "none").exists()


def test_videos_longer_than_a_row_group_are_whole(tmp_path: Path) -> None:
    """Rows of one video lie in several row groups of its part."""
    results = Results(Storage(str(tmp_path / "labels")))
    put(results, part_name(1), {name: {0: ("star", 0.5, tuple(range(5000)))} for name in "abc"})
    assert export(results.storage.root, tmp_path / "out", "coco") == ExportSummary(videos=3, tracks=3)
    written = json.loads((tmp_path / "out" / FILE).read_text())
    assert len(written["images"]) == len(written["annotations"]) == 15_000
    assert len({image["id"] for image in written["images"]}) == 15_000


def test_row_groups_of_which_nothing_counts_are_passed_over(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path / "labels")))
    seen = {0: ("star", 0.5, (0,))}
    put(results, part_name(1), {"a": seen, "b": {}, "c": seen})
    put(results, part_name(2), {"a": seen, "c": seen})
    assert export(results.storage.root, tmp_path / "out", "coco") == ExportSummary(videos=2, tracks=2)
    with hold_lease(results.storage) as lease:
        settle(results, lease)
    assert export(results.storage.root, tmp_path / "out", "coco") == ExportSummary(videos=2, tracks=2)
