"""An archive as it comes, in one run: every format is labelled whole, and a bad file costs no other one anything."""

from pathlib import Path

import pytest

from openvis_model.association import AssociationConfig
from openvis_model.video_tracker import VideoTrackerConfig
from pipelines.archive.tables import read_masks, read_videos
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.run import label_videos
from tests.pipelines.video.clips import CLIPS, H264, VFR, listed_clip, write_clip, write_images
from tests.pipelines.video.hostile import HOSTILE, write_hostile

pytestmark = pytest.mark.usefixtures("cluster")

TRACKER = VideoTrackerConfig(association=AssociationConfig(min_similarity=-1.0), objectness_threshold=0.0, max_gap=2)

# Frames, looked at every fourth one.
WHOLE = dict.fromkeys(CLIPS, 12) | {"one.mp4": 1, "images": 5, "good.mp4": 12}


def test_whatever_is_in_it(tmp_path: Path) -> None:
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
    found = {Path(row["uri"]).name: row for row in read_videos(output).to_pylist()}
    assert found.keys() == {*WHOLE, *HOSTILE}
    for name, frames in WHOLE.items():
        row = found[name]
        assert (row["status"], row["frames"], row["expected_frames"], row["error"]) == ("ok", frames, frames, None), (
            name
        )
    assert (found["rotated_90.mp4"]["height"], found["rotated_90.mp4"]["width"]) == (128, 96)
    assert (found["odd.mp4"]["height"], found["odd.mp4"]["width"]) == (75, 101)

    assert len(HOSTILE) >= 20
    for name, (_, error, frames) in HOSTILE.items():
        row = found[name]
        assert error in (row["error"] or ""), name
        assert row["status"] == ("failed" if frames == 0 else "ok"), name
        assert (row["frames"] > 0) if frames is None else (row["frames"] == frames), name
    assert {row["video_id"]: row["error"] for row in found.values() if row["status"] == "failed"} == summary.failures

    times: dict[str, set[float]] = {row["video_id"]: set() for row in found.values()}
    for mask in read_masks(output).to_pylist():
        times[mask["video_id"]].add(mask["time_s"])
    assert all(times[found[name]["video_id"]] for name in WHOLE)
    expected = {float(time - VFR[0]) for time in VFR}
    assert all(min(abs(time - other) for other in expected) < 2e-3 for time in times[found["variable.mp4"]["video_id"]])
