import subprocess
import sys
from dataclasses import fields

import numpy as np
import pyarrow as pa
import pytest

from pipelines.labelling.rows import LOAD, BatchRow, LabelledRow, Row, SegmentRow, pack_load, unpack_load
from pipelines.video.plan import Segment, VideoInfo

INFO = VideoInfo(frames=9, fps=29.97, width=640, height=384, duration_s=0.3, codec="h264")
EXACT = np.array([0.1, 1 / 3, np.pi])
FULL = {
    SegmentRow: SegmentRow(
        video_id="v",
        uri="s3://b/ü.mp4",
        version="etag",
        info=INFO,
        expected_frames=9,
        segments=3,
        segment=2,
        kept_frame=np.array([6, 7, 8]),
        kept_time_s=EXACT,
        kept_pts=np.array([-(2**62), 0, 2**62]),
        start_pts=0,
        seek=-5,
    ),
    BatchRow: BatchRow(
        video_id="v",
        uri="/v.mp4",
        info=INFO,
        batch=4,
        last_batch=False,
        frame=np.array([6, 7, 8]),
        time_s=EXACT,
        frames=np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8),
    ),
    LabelledRow: LabelledRow(
        video_id="v",
        uri="/v.mp4",
        error="model failed",
        frame=np.array([6, 7, 8]),
        time_s=EXACT,
        instances=bytes(range(256)),
        model_s=0.1,
    ),
}


def check_equal(a: Row, b: Row) -> None:
    assert type(a) is type(b)
    for column in fields(a):
        x, y = getattr(a, column.name), getattr(b, column.name)
        if isinstance(x, np.ndarray):
            assert (x.dtype, x.shape) == (y.dtype, y.shape), column.name
            assert np.array_equal(x, y), column.name
        else:
            assert x == y, column.name
            assert type(x) is type(y), column.name


@pytest.mark.parametrize("kind", FULL)
def test_rows_survive_a_table(kind: type[Row]) -> None:
    """Also among other rows, and after the null of every column that may be null."""
    rows = [FULL[kind], kind(video_id="w", uri="/w.mp4"), FULL[kind]]
    table = pa.concat_tables(row.to_table() for row in rows)
    assert table.schema == kind.schema()
    for source, first in ((table, 0), (table.combine_chunks(), 0), (table.slice(1), 1), (table.take([2]), 2)):
        for a, b in zip(rows[first:], kind.from_table(source), strict=True):
            check_equal(a, b)


def test_pixels_are_not_copied_when_they_are_read() -> None:
    table = FULL[BatchRow].to_table()
    first, second = (next(BatchRow.from_table(table)).frames for _ in range(2))
    assert np.shares_memory(first, second)


def test_segments_survive_a_row() -> None:
    segment = Segment(index=1, frames=np.arange(3), times_s=EXACT, pts=np.arange(3) * 512, start_pts=None, seek=7)
    row = SegmentRow.of(SegmentRow(video_id="v", uri="/v.mp4", segments=2), segment)
    assert (row.video_id, row.segments, row.segment) == ("v", 2, 1)
    (row,) = SegmentRow.from_table(row.to_table())
    decoded = row.to_segment()
    for column in fields(Segment):
        assert np.array_equal(getattr(decoded, column.name), getattr(segment, column.name)), column.name


def test_segments_survive_a_load() -> None:
    """Also as a row among others, from which it is cut."""
    full, empty = FULL[SegmentRow], SegmentRow(video_id="w", uri="/w.mp4", error="not a video file", lost=True)
    assert isinstance(full, SegmentRow)
    loads = pa.concat_tables(pack_load(segments) for segments in ([full, empty], [empty], [empty, full]))
    assert loads.schema == LOAD
    for table, expected in (
        (loads, [full, empty, empty, empty, full]),
        (loads.combine_chunks().slice(1), [empty, empty, full]),
        (loads.take([2]), [empty, full]),
    ):
        for a, b in zip(unpack_load(table), expected, strict=True):
            check_equal(a, b)


def test_columns_that_two_kinds_share_are_carried_over() -> None:
    batch = FULL[BatchRow].to(LabelledRow, model_s=2.0)
    assert isinstance(batch, LabelledRow)
    assert (batch.info, batch.batch, batch.last_batch, batch.model_s) == (INFO, 4, False, 2.0)
    assert len(FULL[SegmentRow].to(BatchRow).frame) == 0  # the frames to keep are not those of a batch


def test_every_fact_about_a_video_has_a_column() -> None:
    info = Row.schema().field("info").type
    assert [info.field(i).name for i in range(info.num_fields)] == [column.name for column in fields(VideoInfo)]


@pytest.mark.parametrize("module", ["rows", "decode_operator", "track_sink"])
def test_workers_that_decode_or_hand_on_need_no_torch(module: str) -> None:
    """A node has many such workers; torch would add seconds to the start and half a gigabyte to each."""
    code = f"import sys, pipelines.labelling.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
