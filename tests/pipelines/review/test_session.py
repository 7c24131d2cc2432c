import gc
import weakref
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.archive.compaction import compact
from pipelines.archive.config import CompactConfig
from pipelines.archive.reviews import Reviews
from pipelines.archive.tables import Results
from pipelines.review.catalogue import Catalogue, Filter
from pipelines.review.config import ReviewConfig
from pipelines.review.search import AbsentError
from pipelines.review.session import Review
from pipelines.storage.files import Storage
from tests.pipelines.archive.decisions import decide
from tests.pipelines.archive.exports import SEEN, put
from tests.pipelines.archive.labels import part_name

ACCEPT = {"video_id": "a", "track_id": 0, "action": "accept", "category": "star"}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    results = Results(Storage(str(tmp_path / "labels")))
    put(results, part_name(1), SEEN, model_fingerprint="m", config_fingerprint="c")
    return results


@pytest.fixture
def small(results: Results) -> Review:
    """A review of three videos whose files do not exist."""
    return Review(ReviewConfig(labels=results.storage.root, reviewer="ann"))


def rows(review: Review, **wanted: Any) -> list[dict[str, Any]]:
    return review.rows(review.find(Filter(**wanted))["found"], 0, 100)


def test_an_archive_has_its_full_path(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser keeps waiting decisions by it; two archives may have the same relative name."""
    folder = Path(results.storage.root)
    monkeypatch.chdir(folder.parent)
    assert Review(ReviewConfig(labels=folder.name, reviewer="ann")).archive()["labels"] == str(folder)


def test_decisions_and_undoing_them(small: Review) -> None:
    assert small.decide([ACCEPT], "ann")[0]["pieces"][0]["action"] == "accept"
    assert rows(small, decision="accept")[0]["pieces"][0]["reviewer"] == "ann"
    assert small.decide([ACCEPT | {"action": "clear", "category": None}], "ann")[0]["pieces"] == []
    assert rows(small, decision="decided") == []


def test_later_decisions_count_also_if_a_clock_is_behind(small: Review) -> None:
    ahead = replace(decide(0, "reject", "star"), time=datetime.now(UTC) + timedelta(hours=1))
    small.decided.add([ahead])
    small.decide([ACCEPT], "bob")
    last = small.decided.last(("a", 0))
    assert last is not None
    assert last["action"] == "accept"


def test_labels_that_are_replaced_meanwhile(small: Review, results: Results) -> None:
    """What was decided is stale when other tracks come, and still there."""
    small.decide([ACCEPT], "ann")
    before = small.catalogue.id
    small.refresh()
    assert small.catalogue.id == before
    put(results, part_name(2), {"a": SEEN["a"]}, model_fingerprint="another")
    small.refresh()
    assert small.catalogue.id != before
    (row,) = rows(small, decision="stale")
    assert (row["track_id"], row["pieces"][0]["stale"]) == (0, True)
    assert small.archive()["stale"] == 1
    assert small.archive()["decided"] == 0
    small.decide([ACCEPT], "ann")
    assert rows(small, decision="stale") == []
    assert Reviews(results.storage).history().num_rows == 2


def test_a_compaction_meanwhile(small: Review, results: Results) -> None:
    put(results, part_name(2), {"d": {0: ("star", 0.9, (0, 3))}})
    small.refresh()
    found = small.find(Filter())["found"]
    compact(CompactConfig(labels=results.storage.root, keep_h=0))
    with pytest.raises(AbsentError, match="they were rewritten meanwhile; load the page again"):
        small.video("d")
    small.refresh()
    assert small.video("d")["frames"] == [0, 3]
    assert len(small.rows(found, 0, 100)) == 5


def test_a_decision_while_tracks_are_listed_again(small: Review, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it comes while the new list is made, or is stored while the new one replaces the old."""
    make = Catalogue.__init__

    def decide_meanwhile(catalogue: Catalogue, *arguments: Any) -> None:
        make(catalogue, *arguments)
        monkeypatch.undo()
        small.decide([ACCEPT], "ann")

    monkeypatch.setattr(Catalogue, "__init__", decide_meanwhile)
    small._list_again()
    assert small.archive()["decided"] == 1
    add = small.decided.add

    def list_meanwhile(decisions: Any) -> Any:
        changed = add(decisions)
        small._list_again()
        return changed

    monkeypatch.setattr(small.decided, "add", list_meanwhile)
    small.decide([ACCEPT | {"track_id": 1}], "ann")
    assert small.archive()["decided"] == 2


def test_a_rejection_holds_while_the_track_has_that_name(small: Review, results: Results) -> None:
    """As in exports: another name that the track was given since is undecided."""
    reject = ACCEPT | {"action": "reject"}
    (rejected,) = small.decide([reject], "ann")
    assert not rejected["pieces"][0]["stale"]
    assert small.archive()["decided"] == 1
    renamed = {0: ("moon", 0.9, SEEN["a"][0][2]), 1: SEEN["a"][1]}
    put(results, part_name(2), {"a": renamed}, model_fingerprint="m", config_fingerprint="c")
    small.refresh()
    assert small.archive()["decided"] == 0
    assert rows(small, decision="reject") == []
    assert rows(small, category="moon")[0]["pieces"][0]["stale"]
    assert [row["track_id"] for row in rows(small, decision="undecided", video="a")] == [0, 1]
    assert {row["category"]: row["judged"] for row in small.catalogue.verdicts()}["moon"] == 0


def test_times_and_gaps(small: Review) -> None:
    video = small.video("a")
    assert video["frames"] == [0, 3, 6, 9]
    assert video["ends"][:3] == video["times"][1:]
    tracks = {
        track["track_id"]: [tuple(round(time, 6) for time in run) for run in track["runs"]] for track in video["tracks"]
    }
    assert tracks == {0: [(0.0, 0.9)], 1: [(0.3, 0.6), (0.9, 1.2)]}
    assert small.video("c")["frames"] == []
    gap = small.masks("a", 4, 8)
    assert list(gap) == [6]
    assert gap[6][0]["rle"]["size"] == [6, 8]


def test_results_are_forgotten_in_time(small: Review) -> None:
    first = small.find(Filter())["found"]
    assert len(small.rows(first, 1, 2)) == 2
    for _ in range(20):
        small.find(Filter())
    with pytest.raises(AbsentError, match="was found too long ago; search again"):
        small.rows(first, 0, 10)


def test_results_do_not_keep_old_catalogues(small: Review, results: Results) -> None:
    """Each is as large as the archive."""
    first, catalogue = small.find(Filter())["found"], weakref.ref(small.catalogue)
    put(results, part_name(2), {"d": SEEN["a"]})
    small.refresh()
    assert len(small.rows(first, 0, 10)) == 4
    put(results, part_name(3), {"e": SEEN["a"]})
    small.refresh()
    with pytest.raises(AbsentError, match="was found too long ago; search again"):
        small.rows(first, 0, 10)
    gc.collect()
    assert catalogue() is None


def test_a_folder_that_cannot_be_written_to(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracks are shown, and nothing is decided."""

    def refuse(*_: Any) -> None:
        raise ValueError("output: cannot write to labels/reviews (Read-only file system); choose another folder")

    monkeypatch.setattr(Storage, "check_writable", refuse)
    review = Review(ReviewConfig(labels=results.storage.root))
    assert review.state()["read_only"].startswith("output: cannot write to")
    assert len(rows(review)) == 4
    with pytest.raises(ValueError, match="^decisions cannot be stored: output: cannot write to"):
        review.decide([ACCEPT], "ann")


def test_a_store_that_fails_tells_so_and_keeps_nothing(small: Review, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device", "labels")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", fail)
        with pytest.raises(OSError, match="No space"):
            small.decide([ACCEPT], "ann")
    assert rows(small, decision="decided") == []


def test_labels_that_are_absent(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no labels; give the output of a labelling run"):
        Review(ReviewConfig(labels=str(tmp_path)))
