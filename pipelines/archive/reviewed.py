"""What decisions make of the tracks of a video: pieces are cut, joined, renamed and dropped."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from pycocotools import mask as coco

from pipelines.archive.formats.video_labels import Row, VideoLabels
from pipelines.archive.reviews import is_stale

Verdict = Literal["accepted", "rejected", "undecided"]


class Piece(NamedTuple):
    """A piece of a track: from `start` on, a frame, to the next piece; None is the track's beginning."""

    track_id: int
    start: int | None

    @property
    def order(self) -> tuple[int, int]:
        """Sorts pieces by track and time."""
        return self.track_id, -1 if self.start is None else self.start


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What was decided about a track.

    Attributes:
        verdict: `accepted` if its category is confirmed or was given by a reviewer.
        category: the category, of the label or of the reviewer.
    """

    verdict: Verdict
    category: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ReviewedVideo:
    """The labels of a video, as decided.

    Attributes:
        labels: tracks after splits and merges, under their final names, with those that were rejected. A piece within
            a track gets an id above those of the video's tracks.
        judged: what was decided about each of them, by track id.
    """

    labels: VideoLabels
    judged: Mapping[int, Judged]


def review_video(labels: VideoLabels, decisions: Iterable[Row]) -> ReviewedVideo:
    """Applies the decisions that count to the labels of their video; leaves out stale ones.

    Masks of merged tracks in the same frame are united. A merged track has the name, the score and the verdict of the
    track that it belongs to.
    """
    about = {
        Piece(row["track_id"], row["split_at"]): row
        for row in decisions
        if row["track_id"] in labels.tracks and not is_stale(dict(row), dict(labels.row))
    }
    if not about:
        judged = {track: Judged(verdict="undecided", category=row["category"]) for track, row in labels.tracks.items()}
        return ReviewedVideo(labels=labels, judged=judged)
    pieces = sorted({*about, *(Piece(track, None) for track in labels.tracks)}, key=lambda piece: piece.order)
    roots = {piece: _root(piece, about, labels.tracks) for piece in pieces}
    ids = _ids(pieces, max(labels.tracks))
    judged = {ids[root]: _judge(labels.tracks[root.track_id], about.get(root)) for root in roots.values()}
    masks = _moved(labels.masks, pieces, {piece: ids[root] for piece, root in roots.items()})
    seen = {mask["track_id"] for mask in masks}
    tracks: dict[int, Row] = {
        ids[root]: {**labels.tracks[root.track_id], "track_id": ids[root], "category": judged[ids[root]].category}
        for root in sorted(set(roots.values()), key=lambda piece: piece.order)
        if ids[root] in seen  # a track that was split before its first mask leaves nothing
    }
    reviewed = replace(labels, tracks=tracks, masks=masks)
    return ReviewedVideo(labels=reviewed, judged={track: judged[track] for track in tracks})


def _root(piece: Piece, about: Mapping[Piece, Row], tracks: Mapping[int, Row]) -> Piece:
    """Returns the piece that a piece was merged into; of pieces that were merged into each other, the first."""
    path = [piece]
    while (row := about.get(path[-1])) and row["action"] == "merge" and row["merged_with"] in tracks:
        target = Piece(row["merged_with"], None)
        if target in path:
            return min(path[path.index(target) :], key=lambda each: each.order)
        path.append(target)
    return path[-1]


def _ids(pieces: Sequence[Piece], last: int) -> dict[Piece, int]:
    within = [piece for piece in pieces if piece.start is not None]
    numbers = {piece: last + 1 + number for number, piece in enumerate(within)}
    return {piece: numbers.get(piece, piece.track_id) for piece in pieces}


def _judge(track: Row, decision: Row | None) -> Judged:
    """Returns what a decision says of a track; a rejected name says nothing of another that it was given since."""
    own = track["category"]
    if decision and decision["action"] in ("accept", "rename"):
        return Judged(verdict="accepted", category=decision["category"])
    if decision and decision["action"] == "reject" and decision["category"] == own:
        return Judged(verdict="rejected", category=own)
    return Judged(verdict="undecided", category=own)


def _moved(masks: Sequence[Row], pieces: Sequence[Piece], ids: Mapping[Piece, int]) -> list[Row]:
    """Returns the masks under the ids of their pieces, sorted by frame and id."""
    starts: dict[int, list[Piece]] = {}
    for piece in reversed(pieces):
        starts.setdefault(piece.track_id, []).append(piece)
    moved: dict[tuple[int, int], Row] = {}
    for mask in masks:
        piece = next(each for each in starts[mask["track_id"]] if each.start is None or each.start <= mask["frame"])
        key = mask["frame"], ids[piece]
        row = {**mask, "track_id": ids[piece]}
        moved[key] = _united(moved[key], row) if key in moved else row
    return [moved[key] for key in sorted(moved)]


def _united(first: Row, second: Row) -> Row:
    """Returns one mask of two in the same frame."""
    both = [{"size": mask["rle"]["size"], "counts": mask["rle"]["counts"].encode()} for mask in (first, second)]
    rle = coco.merge(both)
    x, y, width, height = (int(side) for side in coco.toBbox(rle))
    united: dict[str, Any] = {"x": x, "y": y, "width": width, "height": height, "area": int(coco.area(rle))}
    return {**first, **united, "rle": {"size": rle["size"], "counts": rle["counts"].decode()}}
