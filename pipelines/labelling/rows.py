"""The rows that travel between the operators of the labelling pipeline; each class is one Arrow schema.

    Video → Plan → load of SegmentRows → Decode → BatchRow → Model → LabelledRow → TrackSink

Operators exchange Arrow tables of these schemas, so every block of an operator has the same types, whether a column is
all null in it or not, and `Dataset.schema()` names the columns. This module never imports torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from typing import Annotated, Any, Self, TypeVar, get_type_hints

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64, UInt8
from ray.data.extensions import ArrowVariableShapedTensorArray, ArrowVariableShapedTensorType

from pipelines.video.plan import Segment, VideoInfo

R = TypeVar("R", bound="Row")

_INFO = pa.struct(
    [
        ("frames", pa.int64()),
        ("missing_frames", pa.int64()),
        ("cut_off", pa.bool_()),
        ("fps", pa.float64()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("duration_s", pa.float64()),
        ("codec", pa.string()),
        ("timestamps", pa.bool_()),
    ]
)

_no_ints = partial(np.zeros, 0, np.int64)
_no_floats = partial(np.zeros, 0, np.float64)
_no_frames = partial(np.zeros, (0, 1, 1, 3), np.uint8)


@cache
def _schema(kind: type["Row"]) -> pa.Schema:
    hints = get_type_hints(kind, include_extras=True)
    return pa.schema([(column.name, hints[column.name].__metadata__[0]) for column in fields(kind)])


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """The columns of every operator: the video, and the segment of it that the row belongs to.

    Attributes:
        video_id: the video.
        uri: local path, URI in the cloud, or web address of the video.
        version: ETag or generation that the remote content must have; empty for a local path.
        error: why the video failed, null if it did not. Its other rows no longer count.
        lost: whether the error is the machine's, so that the video may be labelled on another one, or later.
        node: Ray's id of the machine that has read the video.
        info: facts from the file's index, see `VideoInfo`; null if the index could not be read.
        expected_frames: frames that the whole video should yield.
        segments: number of segments of the video.
        segment: position of the segment in the video.
    """

    video_id: Annotated[str, pa.string()]
    uri: Annotated[str, pa.string()]
    version: Annotated[str, pa.string()] = ""
    error: Annotated[str | None, pa.string()] = None
    lost: Annotated[bool, pa.bool_()] = False
    node: Annotated[str, pa.string()] = ""
    info: Annotated[VideoInfo | None, _INFO] = None
    expected_frames: Annotated[int, pa.int64()] = 0
    segments: Annotated[int, pa.int64()] = 1
    segment: Annotated[int, pa.int64()] = 0

    @classmethod
    def schema(cls) -> pa.Schema:
        """Returns the columns with their types."""
        return _schema(cls)  # type: ignore[arg-type] # mypy takes the __hash__ of rows for that of their class

    @classmethod
    def from_table(cls, table: pa.Table) -> Iterator[Self]:
        """Yields the rows of a table; arrays are views of its memory."""
        columns = [table[name] for name in cls.schema().names]
        for i in range(table.num_rows):
            yield cls(**{name: _value(column[i]) for name, column in zip(cls.schema().names, columns, strict=True)})

    def to_table(self) -> pa.Table:
        """Returns a table of this row alone."""
        schema = self.schema()
        return pa.Table.from_arrays(
            [_array(getattr(self, column.name), column.type) for column in schema], schema=schema
        )

    def to(self, kind: type[R], **columns: Any) -> R:
        """Returns a row of another kind: the columns given, the rest from this row where both kinds have them."""
        shared = {column.name for column in fields(self)} & {column.name for column in fields(kind)}
        return kind(**{name: getattr(self, name) for name in shared} | columns)


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentRow(Row):
    """A segment to decode, or the error of a video that could not be planned.

    Attributes:
        kept_frame: positions in the video of the frames to keep.
        kept_time_s: times of these frames, seconds since the video's first frame.
        kept_pts: presentation timestamps of these frames in the file, ticks.
        start_pts: timestamp of the key frame where decoding starts; null is the start of the file.
        seek: timestamp to seek to in order to reach that key frame.
    """

    kept_frame: Annotated[Int64[np.ndarray, " F"], pa.list_(pa.int64())] = field(default_factory=_no_ints)
    kept_time_s: Annotated[Float64[np.ndarray, " F"], pa.list_(pa.float64())] = field(default_factory=_no_floats)
    kept_pts: Annotated[Int64[np.ndarray, " F"], pa.list_(pa.int64())] = field(default_factory=_no_ints)
    start_pts: Annotated[int | None, pa.int64()] = None
    seek: Annotated[int, pa.int64()] = 0

    @classmethod
    def of(cls, row: "SegmentRow", segment: Segment) -> "SegmentRow":
        """Returns the row of one segment, with the other columns of `row`."""
        return replace(
            row,
            segment=segment.index,
            kept_frame=segment.frames,
            kept_time_s=segment.times_s,
            kept_pts=segment.pts,
            start_pts=segment.start_pts,
            seek=segment.seek,
        )

    def to_segment(self) -> Segment:
        """Returns the segment as the decoder takes it."""
        return Segment(
            index=self.segment,
            frames=self.kept_frame,
            times_s=self.kept_time_s,
            pts=self.kept_pts,
            start_pts=self.start_pts,
            seek=self.seek,
        )


LOAD = pa.schema([("segments", pa.list_(pa.struct(list(SegmentRow.schema()))))])
"""The segments that are decoded in one task: one of a long video, or those of several short videos, in one row."""


def pack_load(segments: Sequence[SegmentRow]) -> pa.Table:
    """Returns a table of `LOAD` with one row, which holds at least one segment."""
    rows = pa.concat_tables(row.to_table() for row in segments).to_struct_array().combine_chunks()
    return pa.Table.from_arrays([pa.ListArray.from_arrays([0, len(rows)], rows)], schema=LOAD)


def unpack_load(load: pa.Table) -> Iterator[SegmentRow]:
    """Yields the segments of a table of `LOAD`."""
    for rows in load["segments"].chunks:
        yield from SegmentRow.from_table(pa.Table.from_struct_array(rows.flatten()))


@dataclass(frozen=True, kw_only=True, eq=False)
class _FramesRow(Row):
    """A batch: consecutive frames of a segment that go through the model together.

    Attributes:
        batch: position of the batch in its segment.
        last_batch: whether it is the last one of its segment.
        frame: position of each frame in the video.
        time_s: time of each frame, seconds since the video's first frame.
        thumbnails: of each frame, from `openvis_model.shots`, one after the other; empty if no cuts are looked for.
    """

    batch: Annotated[int, pa.int64()] = 0
    last_batch: Annotated[bool, pa.bool_()] = True
    frame: Annotated[Int64[np.ndarray, "B"], pa.list_(pa.int64())] = field(default_factory=_no_ints)
    time_s: Annotated[Float64[np.ndarray, "B"], pa.list_(pa.float64())] = field(default_factory=_no_floats)
    thumbnails: Annotated[bytes, pa.large_binary()] = b""


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchRow(_FramesRow):
    """A batch with its pixels.

    Attributes:
        frames: RGB, upright, at the model's working size. Working sizes differ between videos and the last batch of a
            segment is shorter, so the shape varies from row to row.
    """

    frames: Annotated[UInt8[np.ndarray, "B h w 3"], ArrowVariableShapedTensorType(pa.uint8(), 4)] = field(
        default_factory=_no_frames
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledRow(_FramesRow):
    """A batch with its instances.

    Attributes:
        instances: the instances of all its frames, encoded by `instance_bytes`.
        model_s: time that the model took, seconds.
    """

    instances: Annotated[bytes, pa.large_binary()] = b""
    model_s: Annotated[float, pa.float64()] = 0.0


def _array(value: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(kind, ArrowVariableShapedTensorType):
        return ArrowVariableShapedTensorArray.from_numpy([value])
    return pa.array([vars(value) if isinstance(value, VideoInfo) else value], kind)


def _value(scalar: pa.Scalar) -> Any:
    if isinstance(scalar, pa.ListScalar):
        return scalar.values.to_numpy()
    value = scalar.as_py()
    return VideoInfo(**value) if isinstance(scalar, pa.StructScalar) and value is not None else value
