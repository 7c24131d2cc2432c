"""The videos and tracks of an archive that count, in memory for DuckDB: what filters and orders look at."""

import hashlib
import json
import os
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import duckdb
import numpy as np
import pyarrow as pa
from jaxtyping import Int32

from pipelines.archive.additions import Additions
from pipelines.archive.duplicates import read_duplicates
from pipelines.archive.reviews import SAME_TRACKS
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results
from pipelines.review.clusters import clusters
from pipelines.review.decided import Decided, Key

Order = Literal["score", "-score", "-uncertain", "-length", "length", "video", "duplicates"]

Rows = Int32[np.ndarray, " n"]

_OF_VIDEO = (
    "video_id", "uri", "status", "error", "frames", "expected_frames", "fps", "width", "height", "duration_s",
    "model_fingerprint", "vocabulary_fingerprint", "config_fingerprint",
)  # fmt: skip
_OF_TRACK = ("video_id", "track_id", "category", "score", "first_frame", "last_frame", "frames")

_ORDERS: Mapping[str, str] = {
    "score": "score asc",
    "-score": "score desc",
    "-uncertain": "abs(score - 0.5) asc",
    "-length": "frames desc",
    "length": "frames asc",
    "video": "video asc, track_id asc",
    "duplicates": "(select cluster from clusters where clusters.row = tracks.row) asc nulls last",
}

_TRACKS = """
    create table tracks as
    select (row_number() over ())::integer - 1 as row, videos.video, track_id, category, score, first_frame,
        last_frame, loaded.frames, added
    from loaded join videos using (video_id)
"""  # DuckDB keeps the order of what it reads

_DECISIONS = """
    create table decisions (video integer, track_id integer, action varchar, given varchar, stale boolean)
"""

_NEW_DECISIONS = """
    insert into decisions
    select video, track_id, action, given, new.stale or (action = 'reject' and given is distinct from category)
    from new left join tracks using (video, track_id)
"""  # as `is_renamed` has it

_PAIRS = """
    select a.row as one, b.row as other from pairs
    join videos as of_a using (video_id) join videos as of_b on of_b.video_id = other_video_id
    join tracks as a on a.video = of_a.video and a.track_id = pairs.track_id
    join tracks as b on b.video = of_b.video and b.track_id = other_track_id
    where kind = 'track'
"""

_SHOWN = """
    select row, videos.video_id, videos.name, track_id, tracks.category, score, first_frame, last_frame, tracks.frames,
        (last_frame - first_frame + 1) / videos.fps as seconds
    from tracks join videos using (video)
    where row in (select unnest(?))
"""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which tracks are shown, and in which order.

    Attributes:
        category: exact name, as labelled or as a reviewer named it; None takes all.
        video: id of a video; None takes all.
        name: part of the name of videos, in any case.
        min_score: lowest score.
        max_score: highest score.
        min_frames: lowest number of frames that show the track.
        decision: `undecided`, `decided`, an action, or `stale`; None takes all.
        duplicates: only tracks with near-duplicates in other videos.
        order: column to sort by; a minus is descending.

    Raises:
        ValueError: a field is out of range.
    """

    category: str | None = None
    video: str | None = None
    name: str | None = None
    min_score: float = 0.0
    max_score: float = 1.0
    min_frames: int = 0
    decision: str | None = None
    duplicates: bool = False
    order: Order = "-score"

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise ValueError(f"order: unknown value {self.order!r}; choose from {', '.join(get_args(Order))}")


class Catalogue:
    """The tracks of the parts that count now. Methods may be called by several threads.

    Args:
        results: the archive.
        decided: its decisions.

    Attributes:
        id: tells it from other catalogues of the archive.
        numbering: equal for catalogues in which rows have the same numbers, but for rows that were added.
        listed: the parts that there were.
        parts: those with videos that count, and the ids of these.
        size: number of tracks; their rows are counted from 0, part by part, then those of added tracks.
        additions: the archive's added tracks.
        known: the names of their files.
        added: rows of those that count.
    """

    def __init__(self, results: Results, decided: Decided) -> None:
        self.results = results
        self.decided = decided
        self.id = uuid.uuid4().hex
        self.listed = results.parts()
        self.numbering = hashlib.sha256(json.dumps(self.listed).encode()).hexdigest()
        self.parts = {part: ids for part, ids in results.counting().items() if len(ids)}
        self._database = duckdb.connect()
        self._deciding = threading.Lock()
        self._orders: dict[Order, Rows] = {}
        videos, labelled = self._read("videos", _OF_VIDEO), self._read("tracks", _OF_TRACK)
        self.additions = Additions(results.storage)
        self.known = self.additions.names()
        self._video_ids = videos["video_id"].to_pylist()
        fingerprints = (videos[name].to_pylist() for name in SAME_TRACKS)
        self._fingerprints = dict(zip(self._video_ids, zip(*fingerprints, strict=True), strict=True))
        added = self.additions.tracks().sort_by("time")  # so that rows keep their numbers
        about = added.select(["video_id", *SAME_TRACKS])
        self.added = added.filter(pa.array([not self.is_stale(row) for row in about.to_pylist()], pa.bool_()))
        tracks = pa.concat_tables([labelled, self.added.select(_OF_TRACK)])
        is_added = np.arange(tracks.num_rows) >= labelled.num_rows
        tracks = tracks.append_column("added", pa.array(is_added))
        names = [os.path.basename(uri.rstrip("/")) if uri else "" for uri in videos["uri"].to_pylist()]
        numbered = videos.append_column("name", pa.array(names, pa.string()))
        numbered = numbered.append_column("video", pa.array(np.arange(videos.num_rows, dtype=np.int32)))
        part = np.repeat(np.arange(len(self.parts), dtype=np.int32), list(map(len, self.parts.values())))
        with self._cursor() as cursor:
            cursor.register("given", numbered.append_column("part", pa.array(part)))
            cursor.execute("create table videos as select * from given")
            cursor.register("loaded", tracks)
            cursor.execute(_TRACKS)
            cursor.execute(_DECISIONS)
            cursor.register("pairs", read_duplicates(results.storage))
            pairs = cursor.execute(_PAIRS).fetchnumpy()
            rows, cluster = clusters(pairs["one"], pairs["other"])
            cursor.register("paired", pa.table({"row": rows, "cluster": cluster}))
            cursor.execute("create table clusters as select * from paired")
        self.size = tracks.num_rows
        self._numbers = {video_id: number for number, video_id in enumerate(self._video_ids)}
        self.decide(decided.tracks())

    def warm_up(self) -> None:
        """Sorts the tracks by all orders, so that nobody waits for it."""
        for order in get_args(Order):
            self._in_order(order)

    def decide(self, keys: Sequence[Key]) -> None:
        """Takes over what has been decided about some tracks."""
        with self._deciding:  # DuckDB refuses one of two changes at the same time
            self._decide(keys)

    def _decide(self, keys: Sequence[Key]) -> None:
        rows = [
            (self._numbers[key[0]], key[1], row["action"], row["category"], self.is_stale(row))
            for key in keys
            if key[0] in self._numbers and (row := self.decided.last(key))
        ]
        with self._cursor() as cursor:
            gone = pa.table({"video": pa.array([self._numbers.get(key[0], -1) for key in keys], pa.int32()),
                             "track_id": pa.array([key[1] for key in keys], pa.int32())})  # fmt: skip
            cursor.register("gone", gone)
            cursor.execute("delete from decisions where (video, track_id) in (select (video, track_id) from gone)")
            if rows:
                names = ("video", "track_id", "action", "given", "stale")
                new = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
                cursor.register("new", new)
                cursor.execute(_NEW_DECISIONS)

    def is_stale(self, decision: Mapping[str, Any]) -> bool:
        """Returns whether something is about tracks that its video no longer has."""
        return self._fingerprints.get(decision["video_id"]) != tuple(decision[name] for name in SAME_TRACKS)

    def video(self, video_id: str) -> dict[str, Any] | None:
        """Returns the row of a video, with the name of its `part`; None if no such video counts."""
        rows = self._query("select * from videos where video_id = ?", [video_id])
        return {**rows[0], "part": list(self.parts)[rows[0]["part"]]} if rows else None

    def tracks_of(self, video_id: str) -> list[dict[str, Any]]:
        """Returns the tracks of a video, by id."""
        number = self._numbers.get(video_id, -1)
        sql = "select row, track_id, category, score, first_frame, last_frame, frames from tracks where video = ?"
        return self._query(f"{sql} order by track_id", [number])

    def names_of(self, video_id: str) -> dict[int, str]:
        """Returns the categories of a video's tracks, by id."""
        return {track["track_id"]: track["category"] for track in self.tracks_of(video_id)}

    def find(self, wanted: Filter, *, ordered: bool = True) -> Rows:
        """Returns the rows of the tracks that pass a filter, in its order; of equal ones, by row.

        Args:
            wanted: the filter.
            ordered: whether the order matters; otherwise rows ascend, which takes less time.
        """
        where, values = _conditions(wanted)
        if wanted.video is not None:
            where, values = [*where, "video = ?"], [*values, self._numbers.get(wanted.video, -1)]
        if wanted.name:
            where.append("video in (select video from videos where contains(lower(name), lower(?)))")
            values.append(wanted.name)
        passing = np.ones(self.size, bool)
        if where:
            joined = "left join decisions using (video, track_id)" if wanted.decision or wanted.category else ""
            passing[:] = False
            passing[self._rows(f"select row from tracks {joined} where {' and '.join(where)}", values)] = True  # noqa: S608
        if not ordered:
            return np.flatnonzero(passing).astype(np.int32)
        order = self._in_order(wanted.order)
        found: Rows = order[passing[order]]
        return found

    def _in_order(self, order: Order) -> Rows:
        """Returns all rows in an order, which takes longer than to filter them, so it is kept."""
        if order not in self._orders:
            self._orders[order] = self._rows(f"select row from tracks order by {_ORDERS[order]}, row", [])  # noqa: S608
        return self._orders[order]

    def _rows(self, sql: str, values: Sequence[object]) -> Rows:
        with self._cursor() as cursor:
            found: Rows = np.ascontiguousarray(cursor.execute(sql, list(values)).fetchnumpy()["row"], np.int32)
            return found

    def rows(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Returns some tracks, in the order given, as the page shows them."""
        found = {row["row"]: row for row in self._query(_SHOWN, [list(map(int, rows))])}
        return [found[int(row)] for row in rows if int(row) in found]

    def table(self) -> pa.Table:
        """Returns all tracks with what was decided about them from their beginning, highest score first."""
        sql = """select row, video, track_id, category, score, first_frame, last_frame, tracks.frames,
                     action, given, coalesce(stale, false) as stale
                 from tracks left join decisions using (video, track_id) order by score desc, row"""
        with self._cursor() as cursor:
            found: pa.Table = cursor.sql(sql).to_arrow_table()
            return found

    def videos(self) -> list[dict[str, Any]]:
        """Returns the rows of all videos, by their number."""
        return self._query("select * from videos order by video", [])

    def categories(self) -> list[dict[str, Any]]:
        """Returns the categories of the tracks, with the number of tracks and of decided ones; most tracks first."""
        return self._query(
            """select coalesce(given, category) as category, count(*)::integer as tracks,
                   count(action)::integer as decided
               from tracks left join decisions on decisions.video = tracks.video
                   and decisions.track_id = tracks.track_id and not stale
               group by 1 order by tracks desc, 1""",
            [],
        )

    def verdicts(self) -> list[dict[str, Any]]:
        """Returns the categories of the labels: tracks, those judged, and of these the right ones; rarest first.

        Added tracks are left out: labelling did not find them.
        """
        return self._query(
            """select category, count(*)::integer as tracks,
                   count(*) filter (action in ('accept', 'reject', 'rename'))::integer as judged,
                   count(*) filter (action in ('accept', 'rename') and given = category)::integer as "right"
               from tracks left join decisions on decisions.video = tracks.video
                   and decisions.track_id = tracks.track_id and not stale
               where not added group by 1 order by tracks, 1""",
            [],
        )

    def summary(self) -> dict[str, int]:
        """Returns the numbers of videos, of failed ones, of tracks, of decided ones, and of those with duplicates."""
        sql = """select count(*)::integer as videos, count(*) filter (status <> 'ok')::integer as failed,
                     (select count(*)::integer from decisions where not stale) as decided,
                     (select count(*)::integer from decisions where stale) as stale,
                     (select count(*)::integer from clusters) as duplicates from videos"""
        return self._query(sql, [])[0] | {"tracks": self.size}

    def _read(self, table: str, columns: Sequence[str]) -> pa.Table:
        """Reads a table part by part: embeddings are read again in this order."""
        rows = [
            rows
            for part, ids in self.parts.items()
            for rows in self.results.row_groups(table, part, self.only(part, ids), columns)
        ]
        empty = pa.schema([SCHEMAS[table].field(name) for name in columns]).empty_table()
        return pa.concat_tables([empty, *rows])

    def only(self, part: str, ids: pa.Array) -> pa.Array | None:
        """Returns the ids to read of a part; None if all of its videos count."""
        return None if len(ids) == self.results.listed([part])[0].num_rows else ids

    def _query(self, sql: str, values: Sequence[object]) -> list[dict[str, Any]]:
        with self._cursor() as cursor:
            found: pa.Table = cursor.sql(sql, params=list(values)).to_arrow_table()
            rows: list[dict[str, Any]] = found.to_pylist()
            return rows

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        """Returns a connection of its own for a thread."""
        return self._database.cursor()


def is_renamed(decision: Mapping[str, Any], category: str | None) -> bool:
    """Returns whether a decision rejects another name than the one that its track has now."""
    return bool(decision["action"] == "reject" and decision["category"] != category)


def _conditions(wanted: Filter) -> tuple[list[str], list[object]]:
    """Returns the conditions on tracks and decisions, and their values."""
    where, values = list[str](), list[object]()
    for condition, value, everything in (
        ("score >= ?", wanted.min_score, 0.0),
        ("score <= ?", wanted.max_score, 1.0),
        ("tracks.frames >= ?", wanted.min_frames, 0),
    ):
        if value != everything:
            where.append(condition)
            values.append(value)
    if wanted.duplicates:
        where.append("row in (select row from clusters)")
    if wanted.category is not None:
        where.append("case when stale is false and given is not null then given else category end = ?")
        values.append(wanted.category)
    match wanted.decision:
        case None:
            pass
        case "undecided":
            where.append("(action is null or stale)")
        case "decided":
            where.append("not stale")
        case "stale":
            where.append("stale")
        case action:
            where.append("action = ? and not stale")
            values.append(action)
    return where, values
