"""A mixed archive in one run: every format is labelled completely, and a bad file harms no other."""

from pathlib import Path

import pytest

from openvis_model.options import AssociationConfig, VideoTrackerConfig
from pipelines.archive.tables import read_masks, read_videos
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.run import label_videos
from tests.pipelines.video.clips import CLIPS, H264, VFR, listed_clip, write_clip, write_images
from tests.pipelines.video.hostile import HOSTILE, write_hostile

pytestmark = pytest.mark.usefixtures("cluster", "disc_model")

TRACKER = VideoTrackerConfig(association=AssociationConfig(min_similarity=-1.0), objectness_threshold=0.0, max_gap=2)

# Frames labelled, every fourth one.
WHOLE = dict.fromkeys(CLIPS, 12) | {"one.mp4": 1, "images": 5, "good.mp4": 12}


def test_good_and_hostile_files_are_labelled_together(tmp_path: Path) -> None:
    archive, output = tmp_path / "archive", str(tmp_path / "labels")
    archive.mkdir()
    for name in CLIPS:
        listed_clip(archive, name)
    write_images(archive / "images", 17)
    write_clip(archive / "good.mp4", options=H264)
    for name in HOSTILE:
        write_hostile(archive, name)
    (tmp_path / "names.txt").write_text("red striped star\n")
    summary = label_videos(
        LabelConfig(
            input=str(archive),
            output=output,
            vocabulary=str(tmp_path / "names.txt"),
            tracker=TRACKER,
            objectness_floor=0.0,
            stride=4,
            trackers=2,
        )
    )
    rows = {Path(row["uri"]).name: row for row in read_videos(output).to_pylist()}
    assert rows.keys() == {*WHOLE, *HOSTILE}
    for name, frames in WHOLE.items():
        row = rows[name]
        assert (row["status"], row["frames"], row["expected_frames"], row["error"]) == ("ok", frames, frames, None), (
            name
        )
    assert (rows["rotated_90.mp4"]["height"], rows["rotated_90.mp4"]["width"]) == (128, 96)
    assert (rows["odd.mp4"]["height"], rows["odd.mp4"]["width"]) == (75, 101)

    assert len(HOSTILE) >= 20
    for name, (_, error, frames) in HOSTILE.items():
        row = rows[name]
        assert error in (row["error"] or ""), name
        assert row["status"] == ("failed" if frames == 0 else "ok"), name
        assert (row["frames"] > 0) if frames is None else (row["frames"] == frames), name
    assert {row["video_id"]: row["error"] for row in rows.values() if row["status"] == "failed"} == summary.failures

    times: dict[str, set[float]] = {row["video_id"]: set() for row in rows.values()}
    for mask in read_masks(output).to_pylist():
        times[mask["video_id"]].add(mask["time_s"])
    assert all(times[rows[name]["video_id"]] for name in WHOLE)
    expected = {float(time - VFR[0]) for time in VFR}
    assert all(min(abs(time - other) for other in expected) < 2e-3 for time in times[rows["variable.mp4"]["video_id"]])
