import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.labelling import decoder_process
from pipelines.labelling.decode_operator import Decode, Plan
from pipelines.labelling.rows import LOAD, BatchRow, SegmentRow, pack_load, unpack_load
from pipelines.video.download_cache import DownloadCache
from pipelines.video.options import Limits, Sampling
from tests.pipelines.storage.put import Put
from tests.pipelines.storage.s3_server import Proxy
from tests.pipelines.video.clips import H264, cut_off, number, write_clip, write_images


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """48 frames of 96 × 128 pixels with a key frame every 8."""
    return write_clip(tmp_path / "clip.mp4", options=H264)


def plan(uri: str, limit: int | None, cache: DownloadCache | None = None) -> list[SegmentRow]:
    video = pa.table({"video_id": ["v"], "uri": [uri], "version": [""]})
    loads = list(Plan(Sampling(), limit, cache or DownloadCache(), Limits())(video))
    assert {load.schema for load in loads} == {LOAD}
    segments = [list(unpack_load(load)) for load in loads]
    assert {len(of_load) for of_load in segments} == {1}  # those of one video are decoded in parallel
    return [of_load[0] for of_load in segments]


def decode(row: SegmentRow, cache: DownloadCache | None = None) -> list[BatchRow]:
    tables = list(Decode(64, 32, 6, cache or DownloadCache(), Limits(), "none")(pack_load([row])))
    assert {table.schema for table in tables} == {BatchRow.schema()}
    return [row for table in tables for row in BatchRow.from_table(table)]


def test_segments_and_batches_know_their_place(clip: Path) -> None:
    segments = plan(str(clip), 16)
    assert [row.segment for row in segments] == [0, 1, 2]
    batches = [row for segment in segments for row in decode(segment)]
    places = [(row.segment, row.batch, row.last_batch) for row in batches]
    assert places == [(s, b, b == 2) for s in range(3) for b in range(3)]
    assert {(row.segments, row.expected_frames, row.video_id, row.error) for row in batches} == {(3, 48, "v", None)}
    assert [len(row.frames) for row in batches] == [6, 6, 4] * 3
    assert {row.frames.shape[1:] for row in batches} == {(64, 96, 3)}
    frames = [
        (frame, number(image)) for row in batches for frame, image in zip(row.frame.tolist(), row.frames, strict=True)
    ]
    assert frames == [(i, i) for i in range(48)]
    assert batches[-1].time_s.tolist() == pytest.approx([i / 24 for i in range(44, 48)])


@pytest.mark.parametrize("broken", [0, 1])
def test_an_image_whose_name_is_no_text_fails_its_video_alone(broken: int, tmp_path: Path) -> None:
    """No table could hold such a name, and the run would end."""
    frames = write_images(tmp_path / "frames", 2)
    (frames / f"frame_{broken}.png").unlink()
    (frames / os.fsdecode(b"frame_%d_caf\xe9.png" % broken)).write_bytes(b"no image")
    (segment,) = plan(str(frames), None)
    failed = segment if broken == 0 else decode(segment)[0]
    assert failed.error == f"frame_{broken}_caf\\udce9.png: not an image that can be read"


def test_short_videos_share_a_load(clip: Path, tmp_path: Path) -> None:
    """Up to as many frames as a segment may have; the segments of a long one and what has failed go with others."""
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 99)
    uris = [str(clip)] * 5 + [str(tmp_path / "junk.mp4")]
    videos = pa.table({"video_id": list("abcdef"), "uri": uris, "version": [""] * 6})

    def loads(limit: int | None) -> list[list[tuple[str, int]]]:
        planned = Plan(Sampling(), limit, DownloadCache(), Limits())(videos)
        return [[(row.video_id, row.segment) for row in unpack_load(load)] for load in planned]

    assert loads(None) == [[(name, 0) for name in "abcdef"]]  # 240 of 256 frames
    assert loads(96) == [[("a", 0), ("b", 0)], [("c", 0), ("d", 0)], [("e", 0), ("f", 0)]]
    assert loads(32)[:3] == [[("a", 0)], [("a", 1)], [("b", 0)]]
    assert len(loads(1000)) == 1


def test_a_load_has_the_batches_of_each_of_its_segments(clip: Path, tmp_path: Path) -> None:
    """Also if one of them fails."""
    wide = write_clip(tmp_path / "wide.mp4", size=(96, 192), options=H264)
    segments = [row for path in (clip, wide, tmp_path / "gone.mp4", clip) for row in plan(str(path), None)]
    alone = [row for segment in segments for row in decode(segment)]
    tables = Decode(64, 32, 6, DownloadCache(), Limits(), "none")(pack_load(segments))
    assert pa.concat_tables(tables).equals(pa.concat_tables(row.to_table() for row in alone))
    assert [row.error for row in alone] == [None] * 16 + ["file not found"] + [None] * 8


def test_a_video_that_cannot_be_planned_is_one_row_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 99)
    (row,) = plan(str(tmp_path / "junk.mp4"), None)
    (batch,) = decode(row)
    assert (batch.error, batch.lost, batch.info, len(batch.frames)) == ("not a video file", False, None, 0)


def test_a_file_that_disappears_after_planning_is_one_row_with_the_reason(clip: Path) -> None:
    (row,) = plan(str(clip), None)
    clip.unlink()
    (batch,) = decode(row)
    assert (batch.error, batch.lost, len(batch.frame), len(batch.frames)) == ("file not found", True, 0, 0)


@pytest.mark.nightly
def test_a_decoder_that_something_kills_loses_the_video(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = plan(str(clip), None)
    monkeypatch.setattr(decoder_process, "batches", killed)
    monkeypatch.setattr(decoder_process, "plan", killed)
    for lost in (*decode(row), *plan(str(clip), None)):
        assert (lost.error, lost.lost) == ("its decoder was killed (SIGTERM), as where memory runs out", True)


def killed(*_: object) -> Iterator[None]:
    os.kill(os.getpid(), signal.SIGTERM)
    yield None


def test_a_segment_without_frames_still_has_a_last_batch(clip: Path, tmp_path: Path) -> None:
    """Otherwise the tracker would wait for it for ever."""
    segments = plan(str(clip), 16)
    half = cut_off(clip, tmp_path / "half.mp4", 0.4)
    clip.write_bytes(half.read_bytes() + clip.read_bytes()[-1000:])
    for segment in segments:
        last = decode(segment)[-1]
        assert last.last_batch or last.error


def test_videos_on_s3_are_opened_in_the_cache(clip: Path, bucket: str, proxy: Proxy, put: Put, tmp_path: Path) -> None:
    """All segments decode the content that was planned, even after the object changed; it is downloaded once."""
    uri = put(f"{bucket}/a %+.mp4", clip.read_bytes())
    cache = DownloadCache(folder=str(tmp_path / "cache"))
    segments = plan(uri, 16, cache)
    assert len(segments) == 3
    put(uri, b"junk")
    frames = [number(image) for segment in segments for row in decode(segment, cache) for image in row.frames]
    assert frames == list(range(48))
    assert proxy.count("GET", "mp4") == 1
    (batch,) = decode(segments[0], DownloadCache(folder=str(tmp_path / "another")))
    assert batch.error == "cannot be downloaded: it has changed since it was listed; run again"
    (row,) = plan(f"{bucket}/gone.mp4", 16, cache)
    assert row.error == "file not found"
