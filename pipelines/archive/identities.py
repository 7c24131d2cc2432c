"""Links tracks of the same object, across gaps, cuts and videos, into identities; tracks stay as they are."""

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float32, Int32, Int64

from pipelines.archive.config import IdentitiesConfig
from pipelines.archive.tables import open_labels
from pipelines.archive.track_pairs import ROUNDING, similar_pairs
from pipelines.archive.track_vectors import read_vectors
from pipelines.storage.files import check_output, folder_of

FILE = "identities.parquet"
"""Name of the table in the output of a labelling run."""

SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("track_id", pa.int32()),
        ("identity", pa.int64()),
        ("similarity", pa.float32()),  # cosine of the track's embedding and the identity's mean one
    ]
)

_TOP = 10
"""Most similar tracks, of those that are not in sight with it, that a track is compared with."""


@dataclass(frozen=True, kw_only=True)
class IdentitiesSummary:
    """The result: numbers of tracks, of identities, of those with several tracks, and where the table is."""

    tracks: int
    identities: int
    linked: int
    output: str


def find_identities(config: IdentitiesConfig) -> IdentitiesSummary:
    """Writes the table of identities: a row for each track of the archive.

    Raises:
        ValueError: the labels cannot be read, or the output cannot be written.
        OSError: the disk for temporary files is too small for the embeddings, four bytes a number.
    """
    results = open_labels(config.labels)
    output = config.output or f"{results.storage.root}/{FILE}"
    check_output("output", output, ".parquet")
    video_ids, of_models = read_vectors(results)
    names, tables, identities, linked = pa.array(video_ids, pa.string()), list[pa.Table](), 0, 0
    for tracks in of_models:
        its, similarity = link(
            tracks.vectors,
            tracks.frames,
            tracks.videos,
            tracks.spans,
            threshold=config.threshold,
            across=config.across_videos,
        )
        columns = [names.take(pa.array(tracks.videos)), tracks.ids, its + identities, similarity]
        tables.append(pa.table([pa.array(each) for each in columns], SCHEMA))
        sizes = np.bincount(its)
        identities, linked = identities + len(sizes), linked + int((sizes > 1).sum())
    table = pa.concat_tables([SCHEMA.empty_table(), *tables])
    storage, name = folder_of(output)
    with storage.write(name) as file:
        pq.write_table(table.sort_by([("video_id", "ascending"), ("track_id", "ascending")]), file, compression="zstd")
    return IdentitiesSummary(tracks=table.num_rows, identities=identities, linked=linked, output=output)


def link(
    vectors: Float32[np.ndarray, "N D"],
    frames: Int32[np.ndarray, " N"],
    videos: Int32[np.ndarray, " N"],
    spans: Int32[np.ndarray, "N 2"],
    *,
    threshold: float,
    across: bool,
) -> tuple[Int64[np.ndarray, " N"], Float32[np.ndarray, " N"]]:
    """Links tracks from the most similar pair on.

    Two identities become one if their mean embeddings are similar enough and no track of the one is in the same video
    at the same time as one of the other: an object is in one place.

    Args:
        vectors: unit-norm embeddings of tracks; may be mapped from a file.
        frames: frames of each track, the weight of its embedding.
        videos: number of each track's video.
        spans: first and last frame of each track.
        threshold: least cosine, of two tracks and of two means.
        across: whether tracks of different videos are linked, too.

    Returns:
        The identity of each track, from 0 in the order of their first tracks, and the cosine of its embedding and the
        identity's mean.
    """
    groups = _Groups(vectors, frames, videos, spans)
    for first, second in _pairs(vectors, videos, spans, threshold, across=across):
        groups.join(first, second, threshold)
    roots = np.array([groups.find(track) for track in range(len(vectors))], np.int64)
    _, at, identity = np.unique(roots, return_index=True, return_inverse=True)
    rank = np.empty(len(at), np.int64)
    rank[np.argsort(at)] = np.arange(len(at))
    similarity = np.array([groups.similarity(track) for track in range(len(vectors))], np.float32)
    return rank[identity], similarity


def _pairs(
    vectors: Float32[np.ndarray, "N D"],
    videos: Int32[np.ndarray, " N"],
    spans: Int32[np.ndarray, "N 2"],
    threshold: float,
    *,
    across: bool,
) -> Iterator[tuple[int, int]]:
    """Yields the pairs of tracks that are similar enough, the most similar first, of one video after the other."""
    order = np.argsort(videos, kind="stable")
    ends = np.flatnonzero(np.diff(videos[order])) + 1
    for tracks in (np.arange(len(vectors)),) if across else np.split(order, ends):
        chosen = vectors if across else np.ascontiguousarray(vectors[tracks])
        apart = partial(_apart, videos[tracks], *spans[tracks].T)
        first, second, cosines = similar_pairs(chosen, apart, threshold, _TOP)
        best = np.argsort(-cosines, kind="stable")
        yield from zip(tracks[first[best]].tolist(), tracks[second[best]].tolist(), strict=True)


def _apart(
    videos: Int32[np.ndarray, " N"],
    begin: Int32[np.ndarray, " N"],
    end: Int32[np.ndarray, " N"],
    some: Int32[np.ndarray, " P"],
    others: Int32[np.ndarray, " P"],
) -> Bool[np.ndarray, " P"]:
    """Says which tracks are not in the same video at the same time."""
    together = (begin[some] <= end[others]) & (begin[others] <= end[some])
    apart: Bool[np.ndarray, " P"] = ~(together & (videos[some] == videos[others]))
    return apart


_Times = dict[int, list[tuple[int, int]]]
"""Spans of frames by video, ascending; no two overlap."""


class _Groups:
    """Tracks that are joined into identities, each with a representative; memory grows with what is joined."""

    def __init__(
        self,
        vectors: Float32[np.ndarray, "N D"],
        frames: Int32[np.ndarray, " N"],
        videos: Int32[np.ndarray, " N"],
        spans: Int32[np.ndarray, "N 2"],
    ) -> None:
        self._vectors, self._frames = vectors, frames
        self._videos, self._spans = videos.tolist(), spans.tolist()
        self._parents = list(range(len(vectors)))
        self._times: dict[int, _Times] = {}
        self._sizes: dict[int, int] = {}
        self._sums: dict[int, Float32[np.ndarray, " D"]] = {}

    def find(self, track: int) -> int:
        """Returns the representative of a track's identity."""
        while (parent := self._parents[track]) != track:
            self._parents[track] = self._parents[parent]
            track = parent
        return track

    def join(self, first: int, second: int, threshold: float) -> None:
        """Makes one of two identities if they are similar enough and never seen together."""
        one, other = self.find(first), self.find(second)
        if one == other:
            return
        if self._size(one) < self._size(other):
            one, other = other, one
        ours, theirs = self._sum(one), self._sum(other)
        if ours @ theirs < (threshold - ROUNDING) * np.linalg.norm(ours) * np.linalg.norm(theirs):
            return
        times, more = self._times_of(one), self._times_of(other)
        if _overlap(times, more):
            return
        for video, spans in more.items():
            for span in spans:
                bisect.insort(times.setdefault(video, []), span)
        self._times[one], self._sums[one] = times, ours + theirs
        self._sizes[one] = self._size(one) + self._size(other)
        for each in (self._times, self._sums, self._sizes):
            each.pop(other, None)
        self._parents[other] = one

    def similarity(self, track: int) -> float:
        """Returns the cosine of a track's embedding and its identity's mean one."""
        mean = self._sum(self.find(track))
        return float(self._vectors[track] @ mean / np.linalg.norm(mean))

    def _size(self, root: int) -> int:
        return self._sizes.get(root, 1)

    def _times_of(self, root: int) -> _Times:
        return self._times.get(root) or {self._videos[root]: [tuple(self._spans[root])]}

    def _sum(self, root: int) -> Float32[np.ndarray, " D"]:
        known = self._sums.get(root)
        return self._vectors[root] * max(1, self._frames[root]) if known is None else known


def _overlap(many: _Times, few: _Times) -> bool:
    """Returns whether a span of one overlaps a span of the other in the same video."""
    for video in many.keys() & few.keys():
        spans = many[video]
        for begin, end in few[video]:
            after = bisect.bisect_right(spans, end, key=lambda span: span[0])  # the first one that begins later
            if after and spans[after - 1][1] >= begin:
                return True
    return False
