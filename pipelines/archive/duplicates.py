"""Finds near-duplicate tracks and videos of an archive, from the embeddings in `tracks`; no video is read."""

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float32, Int32

from pipelines.archive.config import DuplicatesConfig
from pipelines.archive.tables import Results, open_labels, track_embeddings
from pipelines.archive.track_pairs import Pairs, similar_pairs
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

_COLUMNS = ("video_id", "track_id", "frames", "embedding")

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
    video_ids, spaces = _read(results)
    tables, tracks, pairs = list[pa.Table](), 0, 0
    for space in spaces:
        found = space.similar(config)
        tables += [_of_tracks(space, found, video_ids), _of_videos(space, found, video_ids, config.min_share)]
        tracks, pairs = tracks + len(space.frames), pairs + len(found[0])
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
    with storage.read(FILE) as file:
        try:
            return pq.read_table(file).select(SCHEMA.names).cast(SCHEMA)
        except (pa.ArrowException, KeyError) as error:
            text = f"labels: {storage.root}/{FILE}: damaged ({error}); run jobs.duplicates again"
            raise ValueError(text) from error


class _Space:
    """The tracks of one model: embeddings in a temporary file, some numbers of each in memory."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="openvis-embeddings-")  # noqa: SIM115 - open as long as the space
        self._width = 0
        self._columns: list[list[Int32[np.ndarray, T]]] = []

    def add(self, tracks: pa.Table, videos: Int32[np.ndarray, "T"]) -> None:
        """Adds tracks, and the numbers of their videos."""
        if not tracks.num_rows:
            return
        vectors = track_embeddings(tracks)
        if self._width not in (0, vectors.shape[1]):
            widths = f"{self._width} and {vectors.shape[1]}"
            raise ValueError(f"labels: embeddings of one model have {widths} numbers; label the videos again")
        self._width = vectors.shape[1]
        self._file.write(vectors.data)
        frames = pc.fill_null(tracks["frames"], 0)
        self._columns.append([videos, *(column.to_numpy().astype(np.int32) for column in (tracks["track_id"], frames))])

    def similar(self, config: DuplicatesConfig) -> Pairs:
        """Ends adding; returns the pairs of tracks of different videos."""
        self._file.flush()
        self.videos, self.ids, self.frames = (np.concatenate(each) for each in zip(*self._columns, strict=True))
        vectors = np.memmap(self._file, np.float32, "r", shape=(len(self.ids), self._width))
        return similar_pairs(vectors, self.videos, config.threshold, config.top)


def _read(results: Results) -> tuple[list[str], list[_Space]]:
    """Returns the ids of all videos, and the tracks of each model."""
    video_ids, spaces = list[str](), defaultdict[str, _Space](_Space)
    wanted = {part: counting for part, counting in results.counting().items() if len(counting)}
    for part, counting in wanted.items():
        videos = pa.concat_tables(results.row_groups("videos", part, counting, ("video_id", "model_fingerprint")))
        its, models = videos["video_id"].combine_chunks(), videos["model_fingerprint"].fill_null("")
        for rows in results.row_groups("tracks", part, counting, _COLUMNS):
            place = pc.index_in(rows["video_id"], its)
            model = models.take(place)
            for name in pc.unique(model).to_pylist():
                chosen = pc.equal(model, name)
                numbers = place.filter(chosen).to_numpy().astype(np.int32) + len(video_ids)
                spaces[name].add(rows.filter(chosen), numbers.astype(np.int32))
        video_ids += its.to_pylist()
    return video_ids, list(spaces.values())


def _of_tracks(space: _Space, pairs: Pairs, video_ids: Sequence[str]) -> pa.Table:
    """Returns rows of `SCHEMA` for pairs of tracks."""
    names, (first, second, cosines) = pa.array(video_ids, pa.string()), pairs
    return _table(
        "track",
        (names.take(pa.array(space.videos[first])), space.ids[first]),
        (names.take(pa.array(space.videos[second])), space.ids[second]),
        cosines,
        None,
    )


def _of_videos(space: _Space, pairs: Pairs, video_ids: Sequence[str], min_share: float) -> pa.Table:
    """Returns rows of `SCHEMA` for pairs of videos whose tracks have enough counterparts in each other."""
    total = np.bincount(space.videos, space.frames, minlength=len(video_ids))
    first, second, cosines = pairs
    low, high = space.videos[first], space.videos[second]
    order = np.lexsort((-cosines, high, low))
    rows = list[tuple[int, int, float, float]]()
    ends = np.flatnonzero(np.diff(low[order]) | np.diff(high[order])) + 1
    for its in np.split(order, ends) if len(order) else ():
        a, b = int(low[its[0]]), int(high[its[0]])
        matched, weighted, frames = set[int](), 0.0, 0
        for pair in its.tolist():  # the most similar first; each track has one counterpart
            if matched.isdisjoint(both := (int(first[pair]), int(second[pair]))):
                matched.update(both)
                weight = int(space.frames[list(both)].min())  # the rest of the longer one has no counterpart
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
