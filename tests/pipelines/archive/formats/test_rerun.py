import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rerun.chunk import RrdReader

from pipelines.archive.export import ExportSummary
from pipelines.archive.formats.video_labels import OVERLAPS
from tests.pipelines.archive.exports import HEIGHT, SEEN, WIDTH, dense, export


def rows(file: Path, entity: str) -> dict[int | None, dict[str, Any]]:
    """What was logged for an entity, by frame, or by None if it is static."""
    found: dict[int | None, dict[str, Any]] = {}
    for chunk in RrdReader(str(file)).stream():
        if chunk.entity_path == f"/{entity}":
            for row in chunk.to_record_batch().to_pylist():
                given = {key: value for key, value in row.items() if value is not None}
                found.setdefault(row.get("frame"), {}).update(given)
    return found


@pytest.mark.parametrize("video", ["a", "b-2"])
def test_rerun_reads_what_was_exported(labels: str, tmp_path: Path, video: str) -> None:
    losses = (f"{OVERLAPS}: 1 track (a/1)",)
    assert export(labels, tmp_path, "rerun") == ExportSummary(videos=2, tracks=4, losses=losses)
    file, tracks = tmp_path / f"{video}.rrd", SEEN[video]
    about = rows(file, "video/tracks")[None]
    assert dict(zip(about["track_id"], about["category"], strict=True)) == {t: row[0] for t, row in tracks.items()}
    assert about["score"] == pytest.approx([tracks[track][1] for track in about["track_id"]])
    assert about["uri"] == [f"/videos/{video}.mp4"]
    (context,) = rows(file, "video")[None]["AnnotationContext:context"]
    numbers = {entry["class_description"]["info"]["label"]: entry["class_id"] for entry in context}
    assert numbers == {f"{tracks[track][0]} #{track}": at for at, track in enumerate(about["track_id"], start=1)}

    images, boxes = rows(file, "video/masks"), rows(file, "video/boxes")
    frames = {frame for _, _, seen in tracks.values() for frame in seen}
    cleared = {frame for frame, row in images.items() if "Clear:is_recursive" in row}
    assert images.keys() == boxes.keys() == frames | cleared
    assert cleared == ({6} if video == "b-2" else set())
    for frame in frames:
        expected, centres = np.zeros((HEIGHT, WIDTH), int), {}
        for track in sorted(tracks, key=lambda track: tracks[track][1]):
            if frame in tracks[track][2]:
                number = about["track_id"].index(track) + 1
                expected[dense(track, frame) == 1] = number
                centres[number] = [frame // 3 + 1.5, track + 1]
        (pixels,) = images[frame]["SegmentationImage:buffer"]
        assert (np.array(pixels, np.uint8).reshape(HEIGHT, WIDTH) == expected).all()
        assert images[frame]["time"].total_seconds() == frame / 10
        found = zip(boxes[frame]["Boxes2D:class_ids"], boxes[frame]["Boxes2D:centers"], strict=True)
        assert dict(found) == centres
        assert boxes[frame]["Boxes2D:half_sizes"] == [[1.5, 1]] * len(centres)


def test_the_package_that_is_missing_is_named(labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ValueError, match="^format: rerun needs the package rerun-sdk; pip install 'rerun-sdk>=0.41'"):
        export(labels, tmp_path, "rerun")


def test_files_of_an_earlier_export_do_not_stay(labels: str, tmp_path: Path) -> None:
    export(labels, tmp_path, "rerun")
    export(labels, tmp_path, "rerun", min_score=0.8)
    assert [file.name for file in tmp_path.glob("*.rrd")] == ["a.rrd"]
