"""The decisions that count, in memory, kept up with all reviewers of an archive."""

import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from pipelines.archive.reviews import Decision, Reviews

Row = dict[str, Any]

Key = tuple[str, int]
"""Id of a video, and of a track in it."""


class Decided:
    """The last decision about each piece of each track. Methods may be called by several threads.

    Args:
        reviews: the decisions of the archive.

    Attributes:
        revision: grows with every decision that is new here.
        latest: time of the last decision.
    """

    def __init__(self, reviews: Reviews) -> None:
        self.reviews = reviews
        self.revision = 0
        self.latest = datetime(1, 1, 1, tzinfo=UTC)
        self._lock, self._adding = threading.Lock(), threading.Lock()
        self._videos: dict[str, dict[int, dict[int | None, Row]]] = {}  # rows by video, track and first frame
        self._ids = set[str]()
        self.refresh()

    def refresh(self) -> list[Key]:
        """Reads what was decided since, here or elsewhere; returns the tracks that it is about."""
        with self._lock:
            return self._take(self.reviews.read_new().to_pylist())

    def add(self, decisions: Sequence[Decision]) -> list[Key]:
        """Stores decisions, and takes over what was decided elsewhere meanwhile; raises as `Reviews.add`.

        One that is stored already was sent again, because its answer was lost: it keeps its time, and so does not
        outdo what was decided since.
        """
        with self._adding:  # otherwise one that is sent twice at once would be stored twice
            if new := [decision for decision in decisions if decision.review_id not in self._ids]:
                self.reviews.add(new)
                self._ids |= {decision.review_id for decision in new}
        return self.refresh()

    def last(self, key: Key) -> Row | None:
        """Returns the last decision about a track from its beginning; None if there is none, or it was withdrawn."""
        return next((row for row in self.pieces(key) if row["split_at"] is None), None)

    def pieces(self, key: Key) -> list[Row]:
        """Returns the last decision about each piece of a track, without those that were withdrawn."""
        with self._lock:
            rows = list(self._videos.get(key[0], {}).get(key[1], {}).values())
        return sorted((row for row in rows if row["action"] != "clear"), key=_start)

    def tracks(self) -> list[Key]:
        """Returns all tracks that anything was decided about."""
        with self._lock:
            return [(video, track) for video, tracks in self._videos.items() for track in tracks]

    def of_video(self, video_id: str) -> list[Row]:
        """Returns the last decision about each piece of a video's tracks."""
        with self._lock:
            tracks = sorted(self._videos.get(video_id, ()))
        return [row for track in tracks for row in self.pieces((video_id, track))]

    def _take(self, rows: Iterable[Row]) -> list[Key]:
        changed = dict[Key, None]()
        for row in rows:
            self._ids.add(row["review_id"])
            key = row["video_id"], row["track_id"]
            pieces = self._videos.setdefault(key[0], {}).setdefault(key[1], {})
            known = pieces.get(row["split_at"])
            if known is None or (known["time"], known["review_id"]) < (row["time"], row["review_id"]):
                pieces[row["split_at"]] = row
                changed[key] = None
                self.latest = max(self.latest, row["time"])
                self.revision += 1
        return list(changed)


def _start(row: Row) -> int:
    return -1 if row["split_at"] is None else int(row["split_at"])
