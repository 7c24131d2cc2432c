from pathlib import Path

from pycocotools.coco import COCO

from pipelines.archive.export import ExportSummary
from pipelines.archive.formats.video_labels import ANNOTATIONS
from tests.pipelines.archive.exports import SEEN, dense, export


def test_coco_is_read_by_pycocotools(labels: str, tmp_path: Path) -> None:
    assert export(labels, tmp_path, "coco", min_score=0.3) == ExportSummary(videos=2, tracks=3)
    coco = COCO(str(tmp_path / ANNOTATIONS))
    assert sorted(category["name"] for category in coco.cats.values()) == ["ring & disc", "star"]
    images = {image["id"]: (image["video_id"], image["frame"]) for image in coco.imgs.values()}
    assert sorted(images.values()) == [("a", 0), ("a", 3), ("a", 6), ("a", 9), ("b-2", 0)]
    found = set()
    for annotation in coco.anns.values():
        video, frame = images[annotation["image_id"]]
        assert (coco.annToMask(annotation) == dense(annotation["track_id"], frame)).all()
        assert annotation["attributes"] == {"track_id": annotation["track_id"]}
        assert annotation["bbox"] == [frame // 3, annotation["track_id"], 3, 2]
        found.add((video, annotation["track_id"], frame, coco.cats[annotation["category_id"]]["name"]))
    assert found == {
        (video, track, frame, name)
        for video, tracks in SEEN.items()
        for track, (name, score, frames) in tracks.items()
        for frame in frames
        if score >= 0.3
    }
