import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines.archive.compaction import compact
from pipelines.archive.config import CompactConfig
from pipelines.archive.reviews import Decision, Reviews
from pipelines.archive.tables import Results
from pipelines.review.decided import Decided
from pipelines.storage.files import Storage
from tests.pipelines.archive.decisions import decide
from tests.pipelines.archive.labels import part_name, put_part


def test_what_others_decide_is_taken_over(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    put_part(Results(storage), part_name(1), "a")
    ann, bob = Decided(Reviews(storage)), Decided(Reviews(storage))
    assert ann.add([decide(1, "accept", "star"), decide(1, "split", split_at=4)]) == [("a", 1)]
    assert bob.last(("a", 1)) is None
    assert bob.refresh() == [("a", 1)]
    assert bob.last(("a", 1)) == ann.last(("a", 1))
    assert bob.add([decide(1, "reject", "star", at=5), decide(2, "accept", "ring")]) == [("a", 1), ("a", 2)]
    assert ann.refresh() == [("a", 1), ("a", 2)]
    assert [(row["split_at"], row["action"]) for row in ann.of_video("a")] == [
        (None, "reject"),
        (4, "split"),
        (None, "accept"),
    ]
    revision = ann.revision
    compact(CompactConfig(labels=storage.root))
    assert ann.refresh() == []
    assert ann.revision == revision


def test_an_earlier_decision_that_arrives_late_does_not_count(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    decided = Decided(Reviews(storage))
    decided.add([decide(1, "reject", "star", at=9)])
    assert decided.add([decide(1, "accept", "star", at=3)]) == []
    last = decided.last(("a", 1))
    assert last is not None
    assert last["action"] == "reject"
    decided.add([decide(1, "clear", at=10)])
    assert decided.last(("a", 1)) is None
    assert decided.pieces(("a", 1)) == []
    assert decided.tracks() == [("a", 1)]


def test_a_decision_that_is_sent_again_does_not_outdo_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if it could only be stored, and not be read back."""
    storage = Storage(str(tmp_path))
    ann, bob = Decided(Reviews(storage)), Decided(Reviews(storage))
    first = decide(1, "accept", "star", at=1)

    def away() -> None:
        raise OSError("away")

    monkeypatch.setattr(ann.reviews, "read_new", away)
    with pytest.raises(OSError, match="away"):
        ann.add([first])
    monkeypatch.undo()
    bob.add([decide(1, "reject", "star", at=2)])
    assert ann.add([replace(first, time=first.time + timedelta(hours=1))]) == [("a", 1)]
    last = ann.last(("a", 1))
    assert last is not None
    assert last["action"] == "reject"
    assert Reviews(storage).history().num_rows == 2


def test_a_decision_that_is_sent_twice_at_once_is_stored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decided, decision = Decided(Reviews(Storage(str(tmp_path)))), decide(1, "accept", "star")
    stored, add = list[Decision](), decided.reviews.add

    def slowly(new: list[Decision]) -> None:
        stored.extend(new)
        time.sleep(0.2)
        add(new)

    monkeypatch.setattr(decided.reviews, "add", slowly)
    senders = [threading.Thread(target=decided.add, args=([decision],)) for _ in range(2)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert stored == [decision]
