import pickle
from pathlib import Path
from typing import Any

import pytest

from pipelines.labelling.batch import LabelledBatch
from pipelines.labelling.decode_stage import Decode, Plan
from pipelines.video.download_cache import DownloadCache
from pipelines.video.isolation import Limits
from pipelines.video.plan import Sampling
from tests.pipelines.storage.put import Put
from tests.pipelines.storage.s3_server import Proxy
from tests.pipelines.video.clips import H264, cut_off, number, write_clip


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """48 frames of 96 × 128 pixels with a key frame every 8."""
    return write_clip(tmp_path / "clip.mp4", options=H264)


def plan(path: Path, limit: int | None, stride: int = 1) -> list[dict[str, Any]]:
    return list(
        Plan(Sampling(stride=stride), limit, DownloadCache(), Limits())(
            {"video_id": "v", "uri": str(path), "version": ""}
        )
    )


def head(row: dict[str, Any]) -> LabelledBatch:
    batch: LabelledBatch = pickle.loads(row["head"])
    return batch


def test_segments_and_batches_know_their_place(clip: Path) -> None:
    segments = plan(clip, 16)
    assert [head(row).segment for row in segments] == [0, 1, 2]
    batches = [row for segment in segments for row in Decode(64, 32, 6, DownloadCache(), Limits())(segment)]
    places = [(head(row).segment, head(row).batch, head(row).last_batch) for row in batches]
    assert places == [(s, b, b == 2) for s in range(3) for b in range(3)]
    assert {(head(row).segments, head(row).expected_frames, head(row).video_id) for row in batches} == {(3, 48, "v")}
    assert [len(row["frames"]) for row in batches] == [6, 6, 4] * 3
    assert {row["frames"].shape[1:] for row in batches} == {(64, 96, 3)}
    frames = [
        (frame, number(image)) for row in batches for frame, image in zip(head(row).frame, row["frames"], strict=True)
    ]
    assert frames == [(i, i) for i in range(48)]
    assert head(batches[-1]).time_s == pytest.approx([i / 24 for i in range(44, 48)])


def test_what_cannot_be_planned_is_one_row_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 99)
    (row,) = plan(tmp_path / "junk.mp4", None)
    (batch,) = Decode(64, 32, 6, DownloadCache(), Limits())(row)
    assert head(batch).error == "not a video file"
    assert len(batch["frames"]) == 0


def test_a_file_that_is_gone_meanwhile_is_one_row_with_the_reason(clip: Path) -> None:
    (row,) = plan(clip, None)
    clip.unlink()
    (batch,) = Decode(64, 32, 6, DownloadCache(), Limits())(row)
    assert head(batch).error == "file not found"


def test_a_segment_without_frames_still_says_that_it_ended(clip: Path, tmp_path: Path) -> None:
    """Or the tracker would wait for it for ever."""
    segments = plan(clip, 16)
    half = cut_off(clip, tmp_path / "half.mp4", 0.4)
    clip.write_bytes(half.read_bytes() + clip.read_bytes()[-1000:])
    for segment in segments:
        rows = list(Decode(64, 32, 6, DownloadCache(), Limits())(segment))
        assert head(rows[-1]).last_batch or head(rows[-1]).error


def test_videos_of_s3_are_opened_in_the_cache(clip: Path, bucket: str, proxy: Proxy, put: Put, tmp_path: Path) -> None:
    """All segments decode what was planned, even where the object has changed; it is downloaded once."""
    uri = put(f"{bucket}/a %+.mp4", clip.read_bytes())
    cache = DownloadCache(folder=str(tmp_path / "cache"))
    segments = list(Plan(Sampling(), 16, cache, Limits())({"video_id": "v", "uri": uri, "version": ""}))
    assert len(segments) == 3
    put(uri, b"junk")
    frames = [
        number(image)
        for segment in segments
        for row in Decode(64, 32, 6, cache, Limits())(segment)
        for image in row["frames"]
    ]
    assert frames == list(range(48))
    assert proxy.count("GET", "mp4") == 1
    cold = DownloadCache(folder=str(tmp_path / "another"))
    (batch,) = Decode(64, 32, 6, cold, Limits())(segments[0])
    assert head(batch).error == "cannot be downloaded: it has changed since it was listed; run again"
    (row,) = Plan(Sampling(), 16, cache, Limits())({"video_id": "v", "uri": f"{bucket}/gone.mp4", "version": ""})
    assert head(row).error == "file not found"
