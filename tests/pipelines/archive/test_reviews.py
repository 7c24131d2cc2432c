import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.archive.compaction import compact
from pipelines.archive.config import CompactConfig
from pipelines.archive.reviews import REVIEWS, SCHEMA, Decision, Reviews, is_stale
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.pipelines.archive.damage import damage_footer
from tests.pipelines.archive.decisions import decide
from tests.pipelines.archive.labels import part_name, put_part


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(str(tmp_path) if request.param == "folder" else request.getfixturevalue("bucket") + "/labels")


def actions(reviews: Reviews) -> dict[tuple[str, int, int | None], str]:
    return {(row["video_id"], row["track_id"], row["split_at"]): row["action"] for row in reviews.read().to_pylist()}


def merge(storage: Storage) -> None:
    compact(CompactConfig(labels=storage.root, keep_h=0))


def test_the_last_decision_about_a_piece_counts(storage: Storage) -> None:
    reviews = Reviews(storage)
    assert reviews.read().num_rows == 0
    reviews.add([decide(1, "rename", "ring", at=2)])
    reviews.add([decide(1, "accept", "star", at=1), decide(2, "reject", "star"), decide(1, "split", split_at=6)])
    reviews.add([decide(2, "clear", at=3), decide(1, "reject", "star", split_at=6, at=4)])
    assert actions(reviews) == {("a", 1, None): "rename", ("a", 1, 6): "reject"}
    assert reviews.history().num_rows == 6
    assert reviews.read(["b"]).num_rows == 0
    assert actions(Reviews(storage)) == actions(reviews)
    assert Reviews(storage).history().schema == SCHEMA


def test_a_decision_that_is_sent_twice_counts_once(storage: Storage) -> None:
    decision = decide(1, "accept", "star")
    Reviews(storage).add([decision])
    Reviews(storage).add([decision, decision])
    assert Reviews(storage).history().num_rows == 1


def test_reviewers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    """Four of them add while the parts are merged, again and again, and a reader looks on."""
    storage = Storage(str(tmp_path))
    put_part(Results(storage), part_name(1), "a")

    def review(reviewer: int) -> None:
        for number in range(25):
            Reviews(storage).add([decide(100 * reviewer + number, "accept", "star")])

    threads = [threading.Thread(target=review, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    reader, seen = Reviews(storage), [0]
    while any(thread.is_alive() for thread in threads):
        merge(storage)
        seen.append(reader.history().num_rows)
    merge(storage)
    assert seen == sorted(seen)
    assert len(actions(reader)) == 100
    assert len(reader.parts()) == 1


class Crash(BaseException):
    """The process dies."""


@pytest.mark.parametrize("removed", range(4))
def test_a_merge_that_breaks_off_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: int) -> None:
    storage, left = Storage(str(tmp_path)), [removed]
    put_part(Results(storage), part_name(1), "a")
    for number in range(3):
        Reviews(storage).add([decide(number, "accept", "star")])
    before = Reviews(storage).history()
    remove = Storage.remove

    def break_off(self: Storage, path: str) -> None:
        if not left[0] and path.startswith(REVIEWS):
            raise Crash
        left[0] -= path.startswith(REVIEWS)
        remove(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "remove", break_off)
        try:
            merge(storage)
        except Crash:
            assert removed < 3
    assert Reviews(storage).history() == before
    merge(storage)
    assert Reviews(storage).history() == before
    assert len(Reviews(storage).parts()) == 1


def test_a_part_that_is_not_stored_whole_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    reviews = Reviews(Storage(str(tmp_path)))
    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", fail)
        with pytest.raises(OSError, match="No space"):
            reviews.add([decide(1, "accept", "star")])
    assert reviews.read().num_rows == 0
    damaged = tmp_path / REVIEWS / "20260101T000000000000-0123456789ab.parquet"
    damaged.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="0123456789ab.parquet: damaged .*; remove it"):
        reviews.read()
    pq.write_table(SCHEMA.empty_table(), damaged)
    damage_footer(damaged)
    with pytest.raises(ValueError, match=r"(?s)0123456789ab.parquet: damaged .*; remove it"):
        reviews.read()


def test_files_of_others_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / REVIEWS).mkdir()
    (tmp_path / REVIEWS / "notes.parquet").write_text("mine")
    assert Reviews(Storage(str(tmp_path))).read().num_rows == 0


def test_decisions_are_copied_once(tmp_path: Path) -> None:
    source, target = Reviews(Storage(str(tmp_path / "a"))), Reviews(Storage(str(tmp_path / "b")))
    source.add([decide(1, "accept", "star")])
    source.copy_to(target)
    source.add([decide(2, "accept", "star")])
    source.copy_to(target)
    source.copy_to(target)
    assert target.history() == source.history()
    assert len(target.parts()) == 2


def test_decisions_about_other_tracks_are_stale() -> None:
    decision = {"model_fingerprint": "m", "config_fingerprint": "c", "vocabulary_fingerprint": "v"}
    assert not is_stale(decision, decision | {"vocabulary_fingerprint": "w"})
    assert is_stale(decision, decision | {"model_fingerprint": "n"})
    assert is_stale(decision, decision | {"config_fingerprint": "d"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: decide(1, "love"), "^action: unknown value 'love'; choose from accept, "),
        (lambda: decide(1, "accept"), "^category: is None; give one with accept, reject, rename"),
        (lambda: decide(1, "rename", " "), "^category: is ' '"),
        (lambda: decide(1, "split", "star", split_at=3), "^category: is 'star'"),
        (lambda: decide(1, "merge"), "^merged_with: is None; give a track with merge"),
        (lambda: decide(1, "merge", merged_with=1), "^merged_with: is track 1 itself"),
        (lambda: replace(decide(1, "clear"), merged_with=2), "^merged_with: is 2"),
        (lambda: decide(1, "split"), "^split_at: missing"),
    ],
)
def test_what_is_no_decision_is_named(make: Callable[[], Decision], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
