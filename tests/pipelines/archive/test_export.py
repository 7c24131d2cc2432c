import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.archive.compaction import compact, settle
from pipelines.archive.config import CompactConfig, ExportConfig
from pipelines.archive.export import ExportSummary, export_annotations
from pipelines.archive.formats.registry import FORMATS
from pipelines.archive.parts import Rows
from pipelines.archive.reviews import Reviews
from pipelines.archive.tables import Results
from pipelines.datasets.ytvis import read_ground_truth
from pipelines.storage.files import Storage
from pipelines.storage.lease import hold_lease
from pipelines.training.checks import open_training_data
from pipelines.training.data import TrainingDataConfig
from tests.pipelines.archive.decisions import decide
from tests.pipelines.archive.exports import HEIGHT, SEEN, WIDTH, export, put
from tests.pipelines.archive.labels import part_name, row
from tests.pipelines.video.clips import H264, write_clip


@pytest.mark.parametrize("kind", FORMATS)
def test_labels_that_change_meanwhile(labels: str, tmp_path: Path, kind: str) -> None:
    """Parts are merged, and a video gets a name that nothing had."""
    results = Results(Storage(labels))
    calls = []

    def change(done: int, total: int) -> None:
        calls.append((done, total))
        if done == 1:
            put(results, part_name(3), {video: {0: ("comet", 0.7, (0, 3))} for video in SEEN})
            compact(CompactConfig(labels=labels, keep_h=0))

    config = ExportConfig(labels=labels, output=str(tmp_path / "out"), format=kind)
    assert export_annotations(config, change).videos == 3
    assert calls == [(1, 3), (2, 3), (3, 3)]
    written = b"".join(file.read_bytes() for file in (tmp_path / "out").rglob("*.*"))
    assert b"comet" in written
    assert b"moon" in written  # of the video that had been written


@pytest.mark.usefixtures("as_user")
def test_what_cannot_be_exported_is_named(labels: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^labels: .*labels has no tracks with a score of 1.0 or more"):
        export(labels, tmp_path / "none", "coco", min_score=1.0)
    with pytest.raises(ValueError, match="^labels: .*absent has no labels"):
        export(str(tmp_path / "absent"), tmp_path / "none", "coco")
    assert not (tmp_path / "none").exists()


def test_tracks_that_are_none_of_the_categories_are_left_out(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path / "labels")))
    rows = Rows()
    rle = {"size": [2, 3], "counts": "06"}
    box = {"x": 0, "y": 0, "width": 3, "height": 2, "area": 6}
    for track, (category, unknown) in enumerate([("star", 0.1), ("disc", 0.6), ("ring", None)]):  # by an older version
        top = [{"category": category, "score": 0.5}]
        named = {"category": category, "score": 0.5, "top": top, "unknown": unknown}
        rows.add("tracks", [row("tracks", track_id=track, **named)])
        rows.add("masks", [row("masks", track_id=track, frame=0, rle=rle, **box)])
    rows.add("videos", [row("videos", status="ok", width=3, height=2, tracks=3)])
    rows.put(results.storage, part_name(1))
    assert export(results.storage.root, tmp_path / "all", "coco").tracks == 3
    assert export(results.storage.root, tmp_path / "known", "coco", max_unknown=0.2).tracks == 2
    written = json.loads((tmp_path / "known" / "annotations.json").read_text())
    assert [category["name"] for category in written["categories"]] == ["ring", "star"]
    with pytest.raises(ValueError, match="max_unknown: expected 0 to 1, got 2"):
        export(results.storage.root, tmp_path / "out", "coco", max_unknown=2)


def test_row_groups_of_which_nothing_counts_are_passed_over(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path / "labels")))
    seen = {0: ("star", 0.5, (0,))}
    put(results, part_name(1), {"a": seen, "b": {}, "c": seen})
    put(results, part_name(2), {"a": seen, "c": seen})
    assert export(results.storage.root, tmp_path / "out", "coco") == ExportSummary(videos=2, tracks=2)
    with hold_lease(results.storage) as lease:
        settle(results, lease)
    assert export(results.storage.root, tmp_path / "out", "coco") == ExportSummary(videos=2, tracks=2)


def decide_about_a(labels: str) -> None:
    """The star of `a` is split: the first piece is accepted, the rest renamed; the ring is rejected."""
    Reviews(Storage(labels)).add(
        [
            decide(0, "accept", "star"),
            decide(0, "rename", "comet", split_at=6),
            decide(1, "reject", "ring & disc"),
            decide(2, "accept", "moon", video_id="b-2", model_fingerprint="of other labels"),
        ]
    )


def written(folder: Path) -> dict[str, Any]:
    """Videos, and annotations by video, category and frames."""
    document = json.loads((folder / "annotations.json").read_text())
    names = {each["id"]: each["name"] for each in document.get("categories", ())}
    videos = {each["id"]: each for each in document.get("videos", ())}
    tracks = {
        (
            videos[each["video_id"]]["video_id"],
            names[each["category_id"]],
            tuple(
                frame
                for frame, mask in zip(videos[each["video_id"]]["frames"], each["segmentations"], strict=True)
                if mask
            ),
        )
        for each in document.get("annotations", ())
    }
    known = {
        each["video_id"]: {key: [names[i] for i in each[key]] for key in each if key.endswith("_category_ids")}
        for each in videos.values()
    }
    return {"tracks": tracks, "known": known, "names": set(names.values())}


def test_decisions_are_applied(labels: str, tmp_path: Path) -> None:
    """Stale ones are not; what was accepted is kept whatever its score."""
    decide_about_a(labels)
    export(labels, tmp_path / "out", "youtube_vis", min_score=0.95)
    assert written(tmp_path / "out")["tracks"] == {("a", "star", (0, 3)), ("a", "comet", (6,))}
    assert export(labels, tmp_path / "all", "youtube_vis") == ExportSummary(videos=2, tracks=4)
    everything = written(tmp_path / "all")
    others = {("b-2", "star", (0,)), ("b-2", "moon", (3,))}
    assert everything["tracks"] == {("a", "star", (0, 3)), ("a", "comet", (6,))} | others
    assert everything["known"] == {"a": {}, "b-2": {}}


def test_decisions_are_ignored_if_told(labels: str, tmp_path: Path) -> None:
    export(labels, tmp_path / "before", "coco")
    decide_about_a(labels)
    export(labels, tmp_path / "after", "coco", reviewed="ignore")
    before, after = (tmp_path / name / "annotations.json" for name in ("before", "after"))
    assert before.read_bytes() == after.read_bytes()


def test_only_what_was_decided(labels: str, tmp_path: Path) -> None:
    """In videos with undecided tracks, what was rejected is absent, unless another track may have the name.

    Frames of rejected tracks are kept, as pictures without objects.
    """
    decide_about_a(labels)
    Reviews(Storage(labels)).add([decide(2, "reject", "moon", at=1, video_id="b-2")])
    export(labels, tmp_path / "out", "youtube_vis", reviewed="only")
    found = written(tmp_path / "out")
    assert found["tracks"] == {("a", "star", (0, 3)), ("a", "comet", (6,))}
    assert found["known"] == {
        "a": {},
        "b-2": {"neg_category_ids": ["moon"], "not_exhaustive_category_ids": []},
    }
    truth = read_ground_truth(str(tmp_path / "out" / "annotations.json"), strict=True)
    names = {category.id: category.name for category in truth.categories}
    absent = [video.federation and [names[i] for i in video.federation.absent] for video in truth.videos]
    assert absent == [["moon"], None]
    assert [video.length for video in truth.videos] == [1, 4]
    export(labels, tmp_path / "coco", "coco", reviewed="only")
    images = json.loads((tmp_path / "coco" / "annotations.json").read_text())["images"]
    assert [len(image.get("neg_category_ids", ())) for image in images] == [1, 0, 0, 0, 0]
    losses = ("boxes without masks: 2 tracks (a/0, a/2)",)
    assert export(labels, tmp_path / "cvat", "cvat", reviewed="only") == ExportSummary(
        videos=1, tracks=2, losses=losses
    )
    Reviews(Storage(labels)).add([decide(0, "clear", at=9)])
    export(labels, tmp_path / "partial", "youtube_vis", reviewed="only")
    partial = written(tmp_path / "partial")
    assert partial["tracks"] == {("a", "comet", (6,))}
    assert partial["known"]["a"] == {"neg_category_ids": ["ring & disc"], "not_exhaustive_category_ids": []}


@pytest.mark.usefixtures("as_user")
def test_without_decisions_there_is_nothing_that_was_decided(labels: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^labels: .* has no accepted, renamed or rejected tracks; review some first"):
        export(labels, tmp_path / "out", "coco", reviewed="only")


def test_images_of_the_frames(tmp_path: Path) -> None:
    """As jobs.train reads them; a video that cannot be read is left out, and named."""
    results = Results(Storage(str(tmp_path / "labels")))
    clip = write_clip(tmp_path / "a.mp4", frames=12, size=(HEIGHT, WIDTH), options=H264)
    put(results, part_name(1), {"a": SEEN["a"]}, uri=str(clip))
    put(results, part_name(2), {"b-2": SEEN["b-2"]}, uri=str(tmp_path / "gone.mp4"))
    summary = export(results.storage.root, tmp_path / "out", "youtube_vis", images=True)
    assert (summary.videos, summary.failures) == (1, {str(tmp_path / "gone.mp4"): "file not found"})
    names = sorted(file.name for file in (tmp_path / "out" / "a").iterdir())
    assert names == ["000000.jpg", "000003.jpg", "000006.jpg", "000009.jpg"]
    data = open_training_data(
        TrainingDataConfig(annotations=str(tmp_path / "out" / "annotations.json"), height=32, width=32)
    )
    assert [video.length for video in data.videos] == [4]
