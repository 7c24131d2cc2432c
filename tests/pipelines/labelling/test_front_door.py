"""`openvis_model.VideoSegmenter` gives the tracks that labelling writes."""

from pathlib import Path
from typing import Any

import pytest

import openvis_model as openvis
from openvis_model.config import InstFormerConfig
from openvis_model.options import AssociationConfig, VideoTrackerConfig
from openvis_model.weights.checkpoint import save_checkpoint
from pipelines.archive.tables import Results
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.run import label_videos
from pipelines.storage.files import Storage
from pipelines.video.frames import read_frames
from pipelines.video.options import Sampling
from tests.networks import with_proposals
from tests.pipelines.archive.archives import STRIDE, TRACKER
from tests.pipelines.video.clips import H264, write_clip
from tests.words import NAMES

pytestmark = pytest.mark.usefixtures("cluster")


def mask_rows(frame: openvis.FrameResult) -> list[tuple[Any, ...]]:
    masks = zip(frame.track_ids.tolist(), frame.boxes.tolist(), frame.masks.to_coco(), strict=True)
    return [(frame.index, track_id, box, rle["size"], rle["counts"].decode()) for track_id, box, rle in masks]


@pytest.mark.parametrize("name", ["0", "2", "large"])
def test_the_same_tracks_and_masks_as_labelling(name: str, archive: Path) -> None:
    """Of a video that the model sees as it is, of one that is cut, and of one that it sees resized."""
    labels = Results(Storage(str(archive / "some")))
    by_uri = {row["uri"]: row["video_id"] for row in labels.read("videos").to_pylist()}
    video_id = next(video_id for uri, video_id in by_uri.items() if uri.endswith(f"{name}.mp4"))
    tracks = labels.read("tracks", video_id=video_id).sort_by("track_id").to_pylist()
    masks = labels.read("masks", video_id=video_id).sort_by([("frame", "ascending"), ("track_id", "ascending")])

    names = (archive / "some.txt").read_text().splitlines()
    segmenter = openvis.VideoSegmenter(openvis.load(), names, tracker=TRACKER)
    frames = read_frames(
        str(archive / "videos" / f"{name}.mp4"), segmenter.working_size, sampling=Sampling(stride=STRIDE)
    )
    results = list(segmenter.track(frames))
    found = [row for frame in results for row in mask_rows(frame)]
    assert found == [
        (row["frame"], row["track_id"], [row["x"], row["y"], row["width"], row["height"]], *row["rle"].values())
        for row in masks.to_pylist()
    ]
    assert len(found) > 20
    (shots,) = labels.read("videos", video_id=video_id)["shots"].to_pylist()
    assert [0, *(frame.index for frame in results if frame.begins_shot)] == [shot["first_frame"] for shot in shots]
    finished = segmenter.finish()
    assert [(t.track_id, t.first_frame, t.last_frame, t.frames, t.category) for t in finished] == [
        (row["track_id"], row["first_frame"], row["last_frame"], row["frames"], row["category"]) for row in tracks
    ]
    for track, row in zip(finished, tracks, strict=True):
        assert [best.category for best in track.top] == [best["category"] for best in row["top"]]
        assert [best.score for best in track.top] == pytest.approx([best["score"] for best in row["top"]], abs=1e-5)
        assert track.embedding.tolist() == pytest.approx(row["embedding"], abs=1e-6)


@pytest.mark.nightly
@pytest.mark.parametrize("network", ["eomt", "rf_detr"])
def test_labelling_with_a_square_proposal_network(network: str, mini_config: InstFormerConfig, tmp_path: Path) -> None:
    """Of random weights, every proposal is a track; masks have the size of a wide video."""
    save_checkpoint(with_proposals(mini_config, network), tmp_path / "checkpoint")
    (tmp_path / "videos").mkdir()
    video = write_clip(tmp_path / "videos" / "wide.mp4", frames=4, size=(90, 160), options=H264)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    every = VideoTrackerConfig(objectness_threshold=0, association=AssociationConfig(min_similarity=-1))
    config = LabelConfig(
        input=str(tmp_path / "videos"),
        output=str(tmp_path / "labels"),
        vocabulary=str(tmp_path / "names.txt"),
        checkpoint=str(tmp_path / "checkpoint"),
        tracker=every,
        objectness_floor=0,
        part_s=0,
    )
    summary = label_videos(config)
    assert (summary.ok, summary.failures, summary.frames) == (1, {}, 4)
    masks = Results(Storage(config.output)).read("masks")
    rows = masks.sort_by([("frame", "ascending"), ("track_id", "ascending")]).to_pylist()
    assert {tuple(row["rle"]["size"]) for row in rows} == {(90, 160)}

    segmenter = openvis.VideoSegmenter(openvis.load(tmp_path / "checkpoint"), NAMES, tracker=every, objectness_floor=0)
    frames = read_frames(str(video), segmenter.working_size)
    found = [row for frame in segmenter.track(frames) for row in mask_rows(frame)]
    assert found == [
        (row["frame"], row["track_id"], [row["x"], row["y"], row["width"], row["height"]], *row["rle"].values())
        for row in rows
    ]
    assert found
