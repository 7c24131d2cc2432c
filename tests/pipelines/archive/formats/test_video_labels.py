import json
from pathlib import Path

from pipelines.archive.export import ExportSummary
from pipelines.archive.formats.video_labels import ANNOTATIONS, VideoLabels
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.pipelines.archive.exports import export, put
from tests.pipelines.archive.labels import part_name


def test_videos_longer_than_a_row_group_are_whole(tmp_path: Path) -> None:
    """Rows of one video lie in several row groups of its part."""
    results = Results(Storage(str(tmp_path / "labels")))
    put(results, part_name(1), {name: {0: ("star", 0.5, tuple(range(5000)))} for name in "abc"})
    assert export(results.storage.root, tmp_path / "out", "coco") == ExportSummary(videos=3, tracks=3)
    written = json.loads((tmp_path / "out" / ANNOTATIONS).read_text())
    assert len(written["images"]) == len(written["annotations"]) == 15_000
    assert len({image["id"] for image in written["images"]}) == 15_000


def test_masks_of_a_frame_begin_with_the_best_track() -> None:
    seen = [(0, 1), (0, 2), (0, 0), (3, 2)]
    masks = [{"frame": frame, "track_id": track} for frame, track in seen]
    tracks = {track: {"score": score} for track, score in enumerate((0.5, 0.2, 0.5))}
    video = VideoLabels(row={}, tracks=tracks, masks=masks, frames=[0, 3])
    found = {frame: [mask["track_id"] for mask in of_frame] for frame, of_frame in video.masks_of_frames().items()}
    assert found == {0: [0, 2, 1], 3: [2]}
