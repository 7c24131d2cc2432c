"""The columns of an archive's tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

SHOT = pa.struct(
    [("first_frame", pa.int32()), ("last_frame", pa.int32()), ("start_s", pa.float64()), ("end_s", pa.float64())]
)
"""A shot: its first and last labelled frame, and their times."""

SCHEMAS: Mapping[str, pa.Schema] = {
    "videos": pa.schema(
        [
            ("video_id", pa.string()),
            ("uri", pa.string()),
            ("status", pa.string()),  # ok, failed
            ("error", pa.string()),  # why it failed, or a warning; null otherwise
            ("frames", pa.int32()),  # sampled and decoded
            ("expected_frames", pa.int32()),  # to be sampled, by the index of the file
            ("fps", pa.float64()),  # of the file
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("duration_s", pa.float64()),
            ("tracks", pa.int32()),
            ("shots", pa.list_(SHOT)),  # null if no cuts were looked for
            ("model_fingerprint", pa.string()),
            ("vocabulary_fingerprint", pa.string()),
            ("config_fingerprint", pa.string()),
            ("top", pa.int32()),  # largest number of categories per track
            ("model_s", pa.float64()),  # seconds in the model
            ("tracker_s", pa.float64()),  # seconds in the tracker and in writing
        ]
    ),
    "tracks": pa.schema(
        [
            ("video_id", pa.string()),
            ("track_id", pa.int32()),
            ("category", pa.string()),
            ("score", pa.float32()),
            ("top", pa.list_(pa.struct([("category", pa.string()), ("score", pa.float32())]))),
            ("first_frame", pa.int32()),
            ("last_frame", pa.int32()),
            ("frames", pa.int32()),  # frames that show it
            ("objectness", pa.float32()),
            ("embedding", pa.list_(pa.float32())),
            ("unknown", pa.float32()),  # how likely an unrelated name fits as well as `category`
            ("colour", pa.list_(pa.float32())),  # mean RGB of its pixels, 0 to 255
        ]
    ),
    "masks": pa.schema(
        [
            ("video_id", pa.string()),
            ("track_id", pa.int32()),
            ("frame", pa.int32()),  # index in the file
            ("time_s", pa.float64()),
            ("x", pa.int32()),
            ("y", pa.int32()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("area", pa.int32()),
            ("score", pa.float32()),  # objectness
            (
                "rle",
                pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())]),
            ),  # COCO run lengths, as in pycocotools
        ]
    ),
}

LATER = frozenset({"shots", "unknown", "colour"})
"""Columns that files of earlier versions lack; they are read as null."""

ORDER = ("masks", "tracks", "videos")
"""In which the files of a part are put in place and registered: `videos` last, which makes the part count."""


@dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """The model, vocabulary and settings that a video was labelled with; columns of the `videos` table.

    `top`, the number of categories listed for a track, is separate: it can be changed without the video.
    """

    model_fingerprint: str
    vocabulary_fingerprint: str
    config_fingerprint: str
    top: int


def schema_of(table: str, columns: Sequence[str] | None) -> pa.Schema:
    """Returns the schema of some columns of a table; None is all of them."""
    return SCHEMAS[table] if columns is None else pa.schema([SCHEMAS[table].field(name) for name in columns])
