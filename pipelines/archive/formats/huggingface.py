"""Hugging Face: a folder that `datasets.load_dataset` loads, with a row per track and a data set card."""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipelines.archive.formats.format import Target
from pipelines.archive.formats.video_labels import Row, VideoLabels, box

_FILE = "data/train.parquet"

_BUFFERED_MASKS = 20_000
"""Masks after which a row group is written."""

_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("uri", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("track_id", pa.int32()),
        ("category", pa.int64()),
        ("score", pa.float32()),
        ("frames", pa.list_(pa.int32())),
        ("times", pa.list_(pa.float64())),
        ("boxes", pa.list_(pa.list_(pa.int32()))),
        ("areas", pa.list_(pa.int32())),
        ("segmentations", pa.list_(pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())]))),
    ]
)

_CARD = """
# Objects in videos

{tracks} tracks of {videos} videos, labelled by openvis, open-vocabulary video instance segmentation. A row is a track:
an object with its category, the score of it, and, for each labelled frame that shows it,

- `frames`, `times`: index in the file, and seconds from the first frame
- `boxes`: left, top, width, height in pixels
- `areas`: pixels
- `segmentations`: COCO compressed run lengths, for `pycocotools.mask.decode`

Videos are not part of the data set; `uri` says where they were. A `score` is the model's, not a person's.
"""


def write_huggingface(videos: Iterable[VideoLabels], target: Target) -> None:
    """Writes a Parquet file with a row per track, and README.md, the card; its features name the categories."""
    counts = {"videos": 0, "tracks": 0}
    with target.storage.write(_FILE) as file, pq.ParquetWriter(file, _SCHEMA, compression="zstd") as writer:
        rows: list[Row] = []
        buffered = 0
        for video in videos:
            rows += _rows(video, target)
            buffered += len(video.masks)
            counts["videos"] += 1
            counts["tracks"] += len(video.tracks)
            if buffered >= _BUFFERED_MASKS:
                writer.write_table(pa.Table.from_pylist(rows, _SCHEMA))
                rows, buffered = [], 0
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, _SCHEMA))
    with target.storage.write("README.md") as file:
        file.write((_front_matter(target.categories) + _CARD.format(**counts)).encode())


def _rows(video: VideoLabels, target: Target) -> Iterable[Row]:
    about = {name: video.row[name] for name in ("video_id", "uri", "width", "height", "fps")}
    for track, masks in video.masks_of_tracks().items():
        row = video.tracks[track]
        category = target.category_number(row["category"]) - 1
        yield about | {
            "track_id": track,
            "category": category,
            "score": row["score"],
            "frames": [mask["frame"] for mask in masks],
            "times": [mask["time_s"] for mask in masks],
            "boxes": [box(mask) for mask in masks],
            "areas": [mask["area"] for mask in masks],
            "segmentations": [mask["rle"] for mask in masks],
        }


def _front_matter(categories: Mapping[str, int]) -> str:
    """Returns the head of the card; without its features, categories would load as numbers."""
    names = {str(number - 1): name for name, number in categories.items()}
    features = [{"name": field.name, **_feature(field.type)} for field in _SCHEMA]
    for feature in features:
        if feature["name"] == "category":
            feature["dtype"] = {"class_label": {"names": names}}
    about = {
        "pretty_name": "Objects in videos",
        "task_categories": ["object-detection", "image-segmentation"],
        "tags": ["video-instance-segmentation", "open-vocabulary"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": _FILE}]}],
        "dataset_info": {"features": features},
    }
    return f"---\n{yaml.safe_dump(about, sort_keys=False, allow_unicode=True)}---\n"


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """Returns a type as data set cards spell it."""
    if pa.types.is_list(kind):
        inner = _feature(kind.value_type)
        return {"list": inner.get("dtype") or inner.get("struct") or inner}
    if pa.types.is_struct(kind):
        return {"struct": [{"name": field.name, **_feature(field.type)} for field in kind]}
    return {"dtype": {"double": "float64", "float": "float32"}.get(str(kind), str(kind))}
