from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.archive.config import ExportConfig
from pipelines.archive.export import export_annotations
from pipelines.archive.reviews import Decision, Reviews
from pipelines.storage.files import Storage
from pipelines.training.checks import open_training_data
from pipelines.training.clips import sample
from pipelines.training.data import TrainingData, TrainingDataConfig
from tests.pipelines.review.archives import model, write_labels, write_videos
from tests.pipelines.video.clips import number


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled") / "videos"
    write_videos(folder)
    return folder


@pytest.fixture
def labels(videos: Path, tmp_path: Path) -> str:
    """In numbered.mp4, track 1 is accepted, 2 renamed, 4 undecided; in old.avi, 1 is rejected, 2 undecided."""
    root = write_labels(str(tmp_path / "labels"), str(videos)).storage.root
    decide(root)
    return root


def decide(root: str) -> None:
    about: tuple[dict[str, Any], ...] = (
        {"video_id": "numbered", "track_id": 1, "action": "accept", "category": "red striped star"},
        {"video_id": "numbered", "track_id": 2, "action": "rename", "category": "half moon"},
        {"video_id": "old", "track_id": 1, "action": "reject", "category": "green plain ring"},
    )
    prints = {"model_fingerprint": model().fingerprint, "vocabulary_fingerprint": "v", "config_fingerprint": "c"}
    Reviews(Storage(root)).add([Decision(**each, **prints, reviewer="ann") for each in about])


def opened(annotations: str, **changes: Any) -> TrainingData:
    about: dict[str, Any] = {"height": 96, "width": 128, "frames": 2, "max_stride": 3, "flip": 0.0} | changes
    return open_training_data(TrainingDataConfig(annotations=annotations, **about))


def test_what_was_decided_is_trained_on(labels: str) -> None:
    data = opened(labels, format="labels")
    assert sorted(data.names) == ["green plain ring", "half moon", "red striped star"]
    assert [data.names[row] for row in data.tracks.categories] == ["red striped star", "half moon"]
    numbered, old = data.videos
    assert numbered.length == 24
    assert numbered.federation is not None
    assert [data.names[row] for row in numbered.federation.partial] == ["red striped star"]  # track 4 is another one
    assert old.federation is not None
    assert [data.names[row] for row in old.federation.absent] == ["green plain ring"]
    assert len(data.tracks.tracks(1)) == 0


def test_clips_show_the_frames_that_were_labelled(labels: str) -> None:
    """The exported images give the same clips but for what JPEG loses."""
    data = opened(labels, format="labels")
    folder = f"{labels}-exported"
    export_annotations(ExportConfig(labels=labels, output=folder, format="youtube_vis", reviewed="only", images=True))
    exported = opened(f"{folder}/annotations.json")
    assert data.sha256 == exported.sha256
    for at in range(12):
        clip, other = sample(data, at), sample(exported, at)
        shown = [number(frame) for frame in clip.frames]
        assert shown == [number(frame) for frame in other.frames]
        assert np.array_equal(clip.masks, other.masks)
        assert np.abs(clip.frames.astype(int) - other.frames).mean() < 3
        if len(clip.masks):  # a box begins at the number of its frame
            assert [int(np.flatnonzero(mask.any(0))[0]) for mask in clip.masks[0]] == shown


@pytest.mark.parametrize(("reviewed", "tracks"), [("respect", 6), ("ignore", 7)])
def test_undecided_tracks_count_if_asked_for(labels: str, videos: Path, reviewed: str, tracks: int) -> None:
    (gone := videos / "gone.mp4").symlink_to(videos / "numbered.mp4")
    try:
        data = opened(labels, format="labels", reviewed=reviewed, frames=1)
    finally:
        gone.unlink()
    assert len(data.tracks.categories) == tracks


def test_videos_that_are_shorter_than_a_clip_are_left_out(labels: str, caplog: pytest.LogCaptureFixture) -> None:
    assert len(opened(labels, format="labels", frames=5).videos) == 1
    assert "1 videos have fewer labelled frames than a clip; they are left out" in caplog.text


def test_videos_and_labels_may_be_on_s3(bucket: str, videos: Path) -> None:
    for file in videos.iterdir():
        Storage(bucket).put(file, f"videos/{file.name}")
    root = write_labels(f"{bucket}/labels", f"{bucket}/videos").storage.root
    decide(root)
    clip = sample(opened(root, format="labels"), 0)
    assert len({number(frame) for frame in clip.frames}) == 2


def test_what_is_wrong_is_told_before_anything_is_trained(labels: str, videos: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="annotations: .* has no accepted, renamed or rejected tracks; review some first"
    ):
        opened(write_labels(str(tmp_path / "new"), str(videos)).storage.root, format="labels")
    with pytest.raises(ValueError, match="has no labels"):
        opened(str(tmp_path), format="labels")
    with pytest.raises(ValueError, match="videos: labels say where their videos are"):
        opened(labels, format="labels", videos=str(videos))
    with pytest.raises(ValueError, match=r"labels: video \d, .*gone.mp4: "):
        opened(labels, format="labels", reviewed="respect", frames=1)
