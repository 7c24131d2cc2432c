"""Links tracks of the same object, across gaps, cuts and videos, into identities; tracks stay as they are.

Two tracks are as similar as the cosine of their embeddings, less the distance of their mean colours (RGB, 0 to 255) in
units of `COLOUR_SPAN`. Embeddings say what an object is, colours which of several alike.
"""

import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

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
        ("similarity", pa.float32()),  # of the track and the identity's mean
    ]
)

COLOUR_SPAN = 400.0
"""Distance of colours that weighs as much as a cosine of one; 40 cost 0.1. Chosen on Shapes (docs/output.md)."""

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
            tracks.colours,
            threshold=config.least_similarity,
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
    colours: Float32[np.ndarray, "N 3"],
    *,
    threshold: float,
    across: bool,
) -> tuple[Int64[np.ndarray, " N"], Float32[np.ndarray, " N"]]:
    """Links tracks from the most similar pair on.

    Two identities become one if their means are similar enough and no track of the one is in the same video at the
    same time as one of the other: an object is in one place.

    Args:
        vectors: unit-norm embeddings of tracks; may be mapped from a file.
        frames: frames of each track, the weight of its embedding and of its colour.
        videos: number of each track's video.
        spans: first and last frame of each track.
        colours: mean RGB of each track, 0 to 255; NaN for one that is compared by its embedding alone.
        threshold: least similarity, of two tracks and of two means.
        across: whether tracks of different videos are linked, too.

    Returns:
        The identity of each track, from 0 in the order of their first tracks, and its similarity to the identity's
        mean.
    """
    groups = _Groups(vectors, frames, videos, spans, colours)
    for first, second in _pairs(vectors, videos, spans, colours, threshold, across=across):
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
    colours: Float32[np.ndarray, "N 3"],
    threshold: float,
    *,
    across: bool,
) -> Iterator[tuple[int, int]]:
    """Yields the pairs of tracks that are similar enough, the most similar first, of one video after the other."""
    order = np.argsort(videos, kind="stable")
    ends = np.flatnonzero(np.diff(videos[order])) + 1
    for tracks in (np.arange(len(vectors)),) if across else np.split(order, ends):
        chosen = vectors if across else np.ascontiguousarray(vectors[tracks])
        distance = partial(_distances, colours[tracks])
        begin, end = spans[tracks].T
        apart = partial(_may_be_one, videos[tracks], begin, end, distance, 1 - threshold)
        first, second, cosines = similar_pairs(chosen, apart, threshold, _TOP)
        similarity = cosines - distance(first, second)
        best = np.argsort(-similarity, kind="stable")
        best = best[similarity[best] >= threshold - ROUNDING]
        yield from zip(tracks[first[best]].tolist(), tracks[second[best]].tolist(), strict=True)


def _distances(
    colours: Float32[np.ndarray, "N 3"], some: Int32[np.ndarray, " P"], others: Int32[np.ndarray, " P"]
) -> Float32[np.ndarray, " P"]:
    """Returns the distances of colours, in units of `COLOUR_SPAN`; 0 where one is unknown."""
    distances = np.linalg.norm(colours[some] - colours[others], axis=1) / np.float32(COLOUR_SPAN)
    known: Float32[np.ndarray, " P"] = np.nan_to_num(distances)
    return known


def _may_be_one(
    videos: Int32[np.ndarray, " N"],
    begin: Int32[np.ndarray, " N"],
    end: Int32[np.ndarray, " N"],
    distance: Callable[[Int32[np.ndarray, " P"], Int32[np.ndarray, " P"]], Float32[np.ndarray, " P"]],
    farthest: float,
    some: Int32[np.ndarray, " P"],
    others: Int32[np.ndarray, " P"],
) -> Bool[np.ndarray, " P"]:
    """Says which tracks are not in the same video at the same time, and of colours that are near enough."""
    together = (begin[some] <= end[others]) & (begin[others] <= end[some]) & (videos[some] == videos[others])
    near: Bool[np.ndarray, " P"] = ~together & (distance(some, others) <= farthest + ROUNDING)
    return near


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
        colours: Float32[np.ndarray, "N 3"],
    ) -> None:
        self._vectors, self._frames, self._colours = vectors, frames, colours
        self._videos, self._spans = videos.tolist(), spans.tolist()
        self._parents = list(range(len(vectors)))
        self._times: dict[int, _Times] = {}
        self._sizes: dict[int, int] = {}
        self._sums: dict[int, _Sum] = {}

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
        if _similarity(ours, theirs) < threshold - ROUNDING:
            return
        times, more = self._times_of(one), self._times_of(other)
        if _overlap(times, more):
            return
        for video, spans in more.items():
            for span in spans:
                bisect.insort(times.setdefault(video, []), span)
        self._times[one], self._sums[one] = times, ours.joined(theirs)
        self._sizes[one] = self._size(one) + self._size(other)
        for each in (self._times, self._sums, self._sizes):
            each.pop(other, None)
        self._parents[other] = one

    def similarity(self, track: int) -> float:
        """Returns the similarity of a track and its identity's mean."""
        return _similarity(self._own(track), self._sum(self.find(track)))

    def _size(self, root: int) -> int:
        return self._sizes.get(root, 1)

    def _times_of(self, root: int) -> _Times:
        return self._times.get(root) or {self._videos[root]: [tuple(self._spans[root])]}

    def _sum(self, root: int) -> "_Sum":
        return self._sums.get(root) or self._own(root)

    def _own(self, track: int) -> "_Sum":
        weight, colour = max(1, int(self._frames[track])), self._colours[track]
        seen = 0 if np.isnan(colour).any() else weight
        return _Sum(self._vectors[track] * weight, np.nan_to_num(colour) * seen, seen)


class _Sum(NamedTuple):
    """Sums over the frames of tracks, and the number of those whose colour is known."""

    vector: Float32[np.ndarray, " D"]
    colour: Float32[np.ndarray, "3"]
    seen: int

    def joined(self, other: "_Sum") -> "_Sum":
        return _Sum(self.vector + other.vector, self.colour + other.colour, self.seen + other.seen)


def _similarity(one: _Sum, other: _Sum) -> float:
    """Returns the similarity of two means."""
    cosine = one.vector @ other.vector / (np.linalg.norm(one.vector) * np.linalg.norm(other.vector))
    if not (one.seen and other.seen):
        return float(cosine)
    return float(cosine - np.linalg.norm(one.colour / one.seen - other.colour / other.seen) / COLOUR_SPAN)


def _overlap(many: _Times, few: _Times) -> bool:
    """Returns whether a span of one overlaps a span of the other in the same video."""
    for video in many.keys() & few.keys():
        spans = many[video]
        for begin, end in few[video]:
            after = bisect.bisect_right(spans, end, key=lambda span: span[0])  # the first one that begins later
            if after and spans[after - 1][1] >= begin:
                return True
    return False
