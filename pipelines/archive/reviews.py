"""Decisions of people about tracks: the table `reviews` of an archive, to which every reviewer only adds.

OUTPUT/reviews/PART.parquet    one row per decision

A decision is about a piece of a track: the track itself or, after it was split, what begins at frame `split_at`. Of
several decisions about a piece the last one counts. All stay in the table, also those about tracks that were labelled
again. Reviewers write parts of their own, so that none waits for another and nothing is overwritten.
"""

import re
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.archive.part_file import naming_damage
from pipelines.archive.tables import READERS, Results
from pipelines.storage.files import Storage
from pipelines.storage.lease import Lease

REVIEWS = "reviews"

Action = Literal["accept", "reject", "rename", "merge", "split", "clear"]

SCHEMA = pa.schema(
    [
        ("review_id", pa.string()),  # the same decision, sent twice, counts once
        ("video_id", pa.string()),
        ("track_id", pa.int32()),
        ("split_at", pa.int32()),  # first frame of the piece; null is the track from its beginning
        ("action", pa.string()),
        ("category", pa.string()),  # that was accepted or rejected, or the new one
        ("merged_with", pa.int32()),  # track that the piece belongs to
        ("note", pa.string()),
        ("reviewer", pa.string()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("model_fingerprint", pa.string()),
        ("vocabulary_fingerprint", pa.string()),
        ("config_fingerprint", pa.string()),
    ]
)

SAME_TRACKS = ("model_fingerprint", "config_fingerprint")
"""Columns of `videos` that a decision shares with the video as it is labelled now, or else is stale. With another
vocabulary a video has the same tracks."""

_NAMED = ("accept", "reject", "rename")
_NAME = re.compile(r"\d{8}T\d{12}-[0-9a-f]{12}")  # time and id of the part


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A decision about a piece of a track.

    Attributes:
        video_id: id of the video.
        track_id: id of the track within the video.
        split_at: first frame of the piece, for what begins within a track; None is the track from its beginning.
        action: `accept` or `reject` says whether the piece is an object of the category; `rename` gives the right
            category; `merge` says that it belongs to another track; `split` begins a piece; `clear` withdraws what was
            decided about the piece, and ends a piece within a track.
        category: the category that is accepted, rejected or given; None for other actions.
        merged_with: id of the track that the piece belongs to, for `merge`.
        note: what the reviewer adds.
        reviewer: who decides.
        model_fingerprint: model of the labels that were looked at.
        vocabulary_fingerprint: vocabulary of these labels.
        config_fingerprint: settings of these labels.
        time: when; the last decision about a piece counts.
        review_id: id of the decision.

    Raises:
        ValueError: a field is missing, superfluous or out of range.
    """

    video_id: str
    track_id: int
    split_at: int | None = None
    action: Action
    category: str | None = None
    merged_with: int | None = None
    note: str | None = None
    reviewer: str
    model_fingerprint: str | None
    vocabulary_fingerprint: str | None
    config_fingerprint: str | None
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    review_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        if self.action not in get_args(Action):
            raise ValueError(f"action: unknown value {self.action!r}; choose from {', '.join(get_args(Action))}")
        if (self.action in _NAMED) != bool(self.category and self.category.strip()):
            raise ValueError(f"category: is {self.category!r}; give one with {', '.join(_NAMED)} alone")
        if (self.action == "merge") != (self.merged_with is not None):
            raise ValueError(f"merged_with: is {self.merged_with}; give a track with merge, and only then")
        if self.action == "merge" and self.merged_with == self.track_id and self.split_at is None:
            raise ValueError(f"merged_with: is track {self.track_id} itself; give another track")
        if self.action == "split" and self.split_at is None:
            raise ValueError("split_at: missing; give the frame at which the track is split")


class Reviews:
    """The decisions of an archive, as they are at each call.

    Args:
        storage: the archive's folder.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._read: dict[str, pa.Table] = {}  # rows of each part, which never change

    def add(self, decisions: Sequence[Decision]) -> None:
        """Adds decisions as one part, which is stored when this returns.

        Raises:
            OSError: the archive cannot be written to; none of the decisions counts.
        """
        self._put(pa.Table.from_pylist(list(map(asdict, decisions)), SCHEMA))

    def parts(self) -> list[str]:
        """Returns the names of the parts; lists again if a compaction replaces some meanwhile."""
        while True:
            replaced = Results(self.storage).replaced()
            whole = set(self.names()).difference(replaced)
            if Results(self.storage).replaced() == replaced:
                return sorted(whole)

    def read(self, video_ids: Sequence[str] | None = None) -> pa.Table:
        """Reads the decisions that count, or those about some videos, also stale ones; `clear` leaves no row.

        Raises:
            ValueError: a file is damaged.
        """
        rows = last_ones(self.history())
        rows = rows.filter(pc.not_equal(rows["action"], "clear"))
        return rows if video_ids is None else rows.filter(pc.is_in(rows["video_id"], pa.array(video_ids, pa.string())))

    def history(self) -> pa.Table:
        """Reads all decisions, each once, by time; raises as `read`."""
        self.read_new()
        return _last_by(pa.concat_tables([SCHEMA.empty_table(), *self._read.values()]), ["review_id"])

    def read_new(self) -> pa.Table:
        """Reads the decisions of the parts that were added since the last call of any method; raises as `read`.

        A compaction makes a new part of decisions that were read before.
        """
        while True:
            parts = self.parts()
            new = [part for part in parts if part not in self._read]
            try:
                with ThreadPoolExecutor(READERS) as pool:
                    added = dict(zip(new, pool.map(self._part, new), strict=True))
                break
            except FileNotFoundError:
                if set(parts) <= set(self.parts()):
                    raise
        self._read = {part: self._read[part] for part in parts if part in self._read} | added
        return pa.concat_tables([SCHEMA.empty_table(), *added.values()])

    def merge_parts(self, lease: Lease) -> tuple[list[str], list[str]]:
        """Puts a part with all decisions in place, each once, if there are several parts.

        Returns:
            The part with all decisions so far, if there are any, and the parts that it replaces.

        Raises:
            RuntimeError: the lease was lost.
        """
        rows, old = self.history(), list(self._read)
        if len(old) < 2:
            return old, []
        lease.check()
        return [self._put(rows)], old

    def copy_to(self, target: "Reviews") -> None:
        """Adds the decisions that another archive lacks, in one part."""
        rows = self.history()
        rows = rows.filter(pc.invert(pc.is_in(rows["review_id"], target.history()["review_id"].combine_chunks())))
        if rows.num_rows:
            target._put(rows)

    def _put(self, rows: pa.Table) -> str:
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:12]}"
        with self.storage.write(f"{REVIEWS}/{name}.parquet") as file:
            pq.write_table(rows, file, compression="zstd")
        return name

    def names(self) -> Iterator[str]:
        """Yields the names of the table's files, also of parts that were replaced; skips files of others."""
        for path in self.storage.list(REVIEWS):
            name = path.removeprefix(f"{REVIEWS}/").removesuffix(".parquet")
            if path.endswith(".parquet") and _NAME.fullmatch(name):
                yield name

    def _part(self, name: str) -> pa.Table:
        path = f"{REVIEWS}/{name}.parquet"
        with self.storage.read(path) as file, naming_damage(f"{self.storage.root}/{path}"):
            return pq.ParquetFile(file).read(use_threads=False).select(SCHEMA.names).cast(SCHEMA)


def last_ones(history: pa.Table) -> pa.Table:
    """Returns the last decision about each piece of a track."""
    keyed = history.append_column("piece", pc.fill_null(history["split_at"], -1))
    return _last_by(keyed, ["video_id", "track_id", "piece"]).drop_columns("piece")


def is_stale(decision: dict[str, Any], video: dict[str, Any]) -> bool:
    """Returns whether a decision is about tracks that a video no longer has.

    Args:
        decision: a row of `reviews`.
        video: the video's row of `videos`.
    """
    return any(decision[name] != video[name] for name in SAME_TRACKS)


def _last_by(rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """Returns the last row of each key, by time; of equal times, that with the larger id."""
    rows = rows.sort_by([("time", "ascending"), ("review_id", "ascending")])
    numbered = rows.select(list(key)).append_column("row", pa.array(np.arange(rows.num_rows)))
    last = numbered.group_by(list(key), use_threads=False).aggregate([("row", "max")])["row_max"]
    return rows.take(pa.array(np.sort(last.to_numpy())))
