import json
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from pipelines.archive.export import ExportSummary
from pipelines.archive.formats.video_labels import ANNOTATIONS
from pipelines.datasets.ytvis import read_ground_truth
from tests.pipelines.archive.exports import HEIGHT, WIDTH, dense, export


def test_youtube_vis_is_read_by_our_own_strict_reader(labels: str, tmp_path: Path) -> None:
    assert export(labels, tmp_path / "out", "youtube_vis") == ExportSummary(videos=2, tracks=4)
    truth = read_ground_truth(str(tmp_path / "out" / ANNOTATIONS), strict=True)
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
    lengths = {video.id: video.length for video in truth.videos}
    written = json.loads((tmp_path / "out" / ANNOTATIONS).read_text())
    for annotation in written["annotations"]:  # TrackEval reads them here
        assert (annotation["height"], annotation["width"]) == (HEIGHT, WIDTH)
        assert annotation["length"] == lengths[annotation["video_id"]] == len(annotation["segmentations"])
    about = {video["video_id"]: video for video in written["videos"]}
    assert about["a"]["frames"] == [0, 3, 6, 9]
    assert about["a"]["uri"] == "/videos/a.mp4"
