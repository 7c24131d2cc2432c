"""Finds near-duplicate tracks and videos of an archive, from the embeddings in `tracks`; no video is read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int32

from pipelines.archive.config import DuplicatesConfig
from pipelines.archive.part_file import naming_damage
from pipelines.archive.tables import open_labels
from pipelines.archive.track_pairs import Pairs, of_other_groups, similar_pairs
from pipelines.archive.track_vectors import TrackVectors, read_vectors
from pipelines.storage.files import Storage, check_output, folder_of

FILE = "duplicates.parquet"
"""Name of the table in the output of a labelling run, where the review page looks for it."""

SCHEMA = pa.schema(
    [
        ("kind", pa.string()),  # video, track
        ("video_id", pa.string()),
        ("track_id", pa.int32()),  # null for videos
        ("other_video_id", pa.string()),
        ("other_track_id", pa.int32()),
        ("similarity", pa.float32()),  # cosine of the embeddings; of videos, the mean of their pairs of tracks
        ("share", pa.float32()),  # of the frames of both videos' tracks that have a counterpart; null for tracks
    ]
)

Values = Sequence[float] | Float32[np.ndarray, "P"]

_Side = tuple[pa.Array, Int32[np.ndarray, "P"] | None]
"""Ids of videos, and of tracks."""


@dataclass(frozen=True, kw_only=True)
class DuplicatesSummary:
    """The result: numbers of tracks and videos, of pairs of each, and where the table is."""

    tracks: int
    videos: int
    track_pairs: int
    video_pairs: int
    output: str


def find_duplicates(config: DuplicatesConfig) -> DuplicatesSummary:
    """Writes the table of near-duplicates of an archive.

    Raises:
        ValueError: the labels cannot be read, or the output cannot be written.
        OSError: the disk for temporary files is too small for the embeddings, four bytes a number.
    """
    results = open_labels(config.labels)
    output = config.output or f"{results.storage.root}/{FILE}"
    check_output("output", output, ".parquet")
    video_ids, of_models = read_vectors(results)
    tables, tracks, pairs = list[pa.Table](), 0, 0
    for its in of_models:
        found = _ascending(its, similar_pairs(its.vectors, of_other_groups(its.videos), config.threshold, config.top))
        tables += [_of_tracks(its, found, video_ids), _of_videos(its, found, video_ids, config.min_share)]
        tracks, pairs = tracks + len(its.frames), pairs + len(found[0])
    table = pa.concat_tables([SCHEMA.empty_table(), *tables]).sort_by(
        [("kind", "descending"), ("video_id", "ascending"), ("track_id", "ascending"), ("similarity", "descending")]
    )
    storage, name = folder_of(output)
    with storage.write(name) as file:
        pq.write_table(table, file, compression="zstd")
    return DuplicatesSummary(
        tracks=tracks, videos=len(video_ids), track_pairs=pairs, video_pairs=table.num_rows - pairs, output=output
    )


def read_duplicates(storage: Storage) -> pa.Table:
    """Returns the table of an archive; an empty one if there is none.

    Raises:
        ValueError: the file is damaged.
        OSError: the storage cannot be read.
    """
    if not storage.exists(FILE):
        return SCHEMA.empty_table()
    with storage.read(FILE) as file, naming_damage(f"labels: {storage.root}/{FILE}", "run jobs.duplicates again"):
        return pq.read_table(file).select(SCHEMA.names).cast(SCHEMA)


def _ascending(tracks: TrackVectors, pairs: Pairs) -> Pairs:
    """Puts the track of the video with the smaller id first: the table does not depend on which was labelled first."""
    first, second, cosines = pairs
    swapped = tracks.videos[first] > tracks.videos[second]
    return np.where(swapped, second, first), np.where(swapped, first, second), cosines


def _of_tracks(tracks: TrackVectors, pairs: Pairs, video_ids: Sequence[str]) -> pa.Table:
    """Returns rows of `SCHEMA` for pairs of tracks."""
    names, (first, second, cosines) = pa.array(video_ids, pa.string()), pairs
    return _table(
        "track",
        (names.take(pa.array(tracks.videos[first])), tracks.ids[first]),
        (names.take(pa.array(tracks.videos[second])), tracks.ids[second]),
        cosines,
        None,
    )


def _of_videos(tracks: TrackVectors, pairs: Pairs, video_ids: Sequence[str], min_share: float) -> pa.Table:
    """Returns rows of `SCHEMA` for pairs of videos whose tracks have enough counterparts in each other."""
    total = np.bincount(tracks.videos, tracks.frames, minlength=len(video_ids))
    first, second, cosines = pairs
    low, high = tracks.videos[first], tracks.videos[second]
    order = np.lexsort((-cosines, high, low))
    rows = list[tuple[int, int, float, float]]()
    ends = np.flatnonzero(np.diff(low[order]) | np.diff(high[order])) + 1
    for its in np.split(order, ends) if len(order) else ():
        a, b = int(low[its[0]]), int(high[its[0]])
        matched, weighted, frames = set[int](), 0.0, 0
        for pair in its.tolist():  # the most similar first; each track has one counterpart
            if matched.isdisjoint(both := (int(first[pair]), int(second[pair]))):
                matched.update(both)
                weight = int(tracks.frames[list(both)].min())  # the rest of the longer one has no counterpart
                frames, weighted = frames + weight, weighted + weight * float(cosines[pair])
        share = 2 * frames / max(total[a] + total[b], 1)
        if share >= min_share:
            rows.append((a, b, weighted / max(frames, 1), share))
    a_of, b_of, similarity, shares = zip(*rows, strict=True) if rows else ((), (), (), ())
    names = pa.array(video_ids, pa.string())
    one, other = (names.take(pa.array(numbers, pa.int64())) for numbers in (a_of, b_of))
    return _table("video", (one, None), (other, None), similarity, shares)


def _table(kind: str, one: _Side, other: _Side, similarity: Values, share: Values | None) -> pa.Table:
    """Returns rows of `SCHEMA`."""
    values = (one[0], one[1], other[0], other[1], similarity, share)
    columns = [
        pa.nulls(len(one[0]), field.type) if its is None else pa.array(its, field.type)
        for field, its in zip(list(SCHEMA)[1:], values, strict=True)
    ]
    return pa.table([pa.array([kind] * len(one[0]), pa.string()), *columns], SCHEMA)
