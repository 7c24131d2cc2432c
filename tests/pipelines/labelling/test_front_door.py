"""`openvis_model.VideoSegmenter` gives the tracks that labelling writes."""

from pathlib import Path
from typing import Any

import pytest

import openvis_model as openvis
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from pipelines.video.frames import read_frames
from pipelines.video.plan import Sampling
from tests.pipelines.archive.archives import STRIDE, TRACKER

pytestmark = pytest.mark.usefixtures("cluster")


def mask_rows(frame: openvis.FrameResult) -> list[tuple[Any, ...]]:
    masks = zip(frame.track_ids.tolist(), frame.boxes.tolist(), frame.masks.to_coco(), strict=True)
    return [(frame.index, track_id, box, rle["size"], rle["counts"].decode()) for track_id, box, rle in masks]


@pytest.mark.parametrize("name", ["0", "large"])
def test_the_same_tracks_and_masks_as_labelling(name: str, archive: Path) -> None:
    """Of a video that the model sees as it is, and of one that it sees resized."""
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
    found = [row for frame in segmenter.track(frames) for row in mask_rows(frame)]
    assert found == [
        (row["frame"], row["track_id"], [row["x"], row["y"], row["width"], row["height"]], *row["rle"].values())
        for row in masks.to_pylist()
    ]
    assert len(found) > 20
    finished = segmenter.finish()
    assert [(t.track_id, t.first_frame, t.last_frame, t.frames, t.category) for t in finished] == [
        (row["track_id"], row["first_frame"], row["last_frame"], row["frames"], row["category"]) for row in tracks
    ]
    for track, row in zip(finished, tracks, strict=True):
        assert [best.category for best in track.top] == [best["category"] for best in row["top"]]
        assert [best.score for best in track.top] == pytest.approx([best["score"] for best in row["top"]], abs=1e-6)
        assert track.embedding.tolist() == pytest.approx(row["embedding"], abs=1e-6)
