"""How precise labels are by what was decided about them, and what to look at next."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Literal

import numpy as np

from pipelines.review.catalogue import Filter
from pipelines.review.session import Review
from pipelines.storage.files import folder_of

Reason = Literal["uncertain", "rare", "like a rejected one"]

_Z = 1.959964  # of 95 %
_MOST = 10  # tracks suggested for each reason
_REJECTED = 200  # rejected tracks that others are compared with


@dataclass(frozen=True, kw_only=True)
class CategoryPrecision:
    """The precision of one category of the labels.

    Attributes:
        category: the category.
        tracks: number of tracks with this label.
        judged: number of those that were accepted, rejected or renamed.
        right: number of those whose label was confirmed.
        precision: `right` / `judged`; 0 if none was judged.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    category: str
    tracks: int
    judged: int
    right: int
    precision: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A track that nobody has decided about, and why somebody should."""

    reason: Reason
    video_id: str
    track_id: int
    category: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report: categories with most judged tracks first."""

    categories: tuple[CategoryPrecision, ...]
    suggestions: tuple[Suggestion, ...]


def report(review: Review) -> Report:
    """Reports on a review whose embeddings are loaded.

    The intervals say what judging more tracks that are chosen alike would give. If only tracks with high scores were
    looked at, precision is that of tracks with high scores.
    """
    verdicts = review.catalogue.verdicts()
    categories = [_precision(row["category"], row["tracks"], row["judged"], row["right"]) for row in verdicts]
    categories.sort(key=lambda row: (-row.judged, -row.tracks, row.category))
    return Report(categories=tuple(categories), suggestions=tuple(_suggestions(review)))


def write_report(found: Report, output: str) -> None:
    """Writes a report as JSON, local or in the cloud.

    Raises:
        OSError: the file cannot be written.
    """
    storage, name = folder_of(output)
    with storage.write(name) as file:
        file.write(json.dumps(asdict(found), indent=1, ensure_ascii=False).encode())


def interval(right: int, judged: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share (Wilson 1927), which is sound for few and for one-sided judgements too."""
    if not judged:
        return 0.0, 1.0
    share, spread = right / judged, _Z**2 / judged
    middle = (share + spread / 2) / (1 + spread)
    reach = _Z * math.sqrt(share * (1 - share) / judged + spread / (4 * judged)) / (1 + spread)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _precision(category: str, tracks: int, judged: int, right: int) -> CategoryPrecision:
    low, high = interval(right, judged)
    share = right / judged if judged else 0.0
    return CategoryPrecision(
        category=category, tracks=tracks, judged=judged, right=right, precision=share, low=low, high=high
    )


def _suggestions(review: Review) -> Iterator[Suggestion]:
    """Yields tracks, each for its first reason only."""
    seen = set[int]()
    reasons: tuple[tuple[Reason, Iterator[int]], ...] = (
        ("like a rejected one", _like_rejected(review)),
        ("uncertain", _uncertain(review)),
        ("rare", _rare(review)),
    )
    for reason, rows in reasons:
        new = list(islice((row for row in rows if row not in seen), _MOST))
        seen.update(new)
        for row in review.catalogue.rows(new):
            names = {name: row[name] for name in ("video_id", "track_id", "category", "score")}
            yield Suggestion(reason=reason, **names)


def _uncertain(review: Review) -> Iterator[int]:
    yield from review.catalogue.find(Filter(decision="undecided", order="-uncertain"))[: 3 * _MOST].tolist()


def _rare(review: Review) -> Iterator[int]:
    """Yields the best track of each category of which none was judged, rarest categories first."""
    for row in review.catalogue.verdicts():
        if not row["judged"]:
            yield from review.catalogue.find(Filter(category=row["category"], decision="undecided"))[:1].tolist()


def _like_rejected(review: Review) -> Iterator[int]:
    """Yields undecided tracks, those first whose embedding is nearest to that of a rejected one."""
    undecided, embeddings = review.catalogue.find(Filter(decision="undecided")), review.search.embeddings
    nearest: dict[int, float] = {}
    for rejected in review.catalogue.find(Filter(decision="reject"))[:_REJECTED].tolist():
        model = embeddings.model_of(rejected)
        rows, cosines = embeddings.nearest(embeddings.of(rejected), undecided, 3 * _MOST, model)
        for row, cosine in zip(rows.tolist(), cosines.tolist(), strict=True):
            nearest[row] = max(cosine, nearest.get(row, -1.0))
    order = np.argsort([-cosine for cosine in nearest.values()], kind="stable")
    yield from np.array(list(nearest), np.int64)[order].tolist()
