import json
from pathlib import Path

import pytest

from pipelines.review.report import interval, report, write_report
from pipelines.review.session import Review


@pytest.mark.parametrize(
    ("right", "judged", "low", "high"),
    [(0, 0, 0, 1), (0, 10, 0, 0.2775), (10, 10, 0.7225, 1), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_intervals_of_shares(right: int, judged: int, low: float, high: float) -> None:
    """The last is the example of Newcombe 1998, table I, method 3."""
    assert interval(right, judged) == pytest.approx((low, high), abs=1e-4)


def test_precision_by_category(review: Review, tmp_path: Path) -> None:
    for video, track, action, category in (
        ("numbered", 1, "accept", "red striped star"),
        ("numbered", 4, "reject", "red striped star"),
        ("old", 1, "rename", "green plain ring"),  # to what it was: confirmed
        ("numbered", 2, "rename", "blue plain moon"),
    ):
        decision = {"video_id": video, "track_id": track, "action": action, "category": category}
        review.decide([decision], "ann")
    found = report(review)
    rows = {row.category: (row.tracks, row.judged, row.right, row.precision) for row in found.categories}
    assert rows["red striped star"] == (3, 2, 1, 0.5)
    assert rows["green plain ring"] == (2, 1, 1, 1.0)
    assert rows["blue dotted moon"] == (1, 1, 0, 0.0)
    assert found.categories[0].category == "red striped star"
    first = found.suggestions[0]
    assert (first.reason, first.video_id, first.track_id) == ("like a rejected one", "old", 2)
    undecided = {(each.video_id, each.track_id) for each in found.suggestions}
    assert len(undecided) == len(found.suggestions) == 3
    write_report(found, str(tmp_path / "report.json"))
    assert json.loads((tmp_path / "report.json").read_text())["categories"][0]["right"] == 1


def test_nothing_decided_yet(review: Review) -> None:
    found = report(review)
    assert {(row.judged, row.low, row.high) for row in found.categories} == {(0, 0.0, 1.0)}
    assert {each.reason for each in found.suggestions} == {"uncertain"}
