import threading
import time
from pathlib import Path
from typing import Any

import pytest

from openvis_model.options import VideoTrackerConfig
from pipelines.archive.additions import FIRST_ID, Additions
from pipelines.archive.reviews import Reviews
from pipelines.archive.tables import Results
from pipelines.review.catalogue import Filter
from pipelines.review.config import ReviewConfig
from pipelines.review.follower import FOLLOWED_ID, Settings, read_settings
from pipelines.review.search import AbsentError
from pipelines.review.session import Review
from pipelines.review.similarity import Embeddings
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name
from tests.pipelines.following.videos import Scene
from tests.pipelines.review.archives import put_video
from tests.pipelines.review.following import write_labelled, write_report

pytestmark = pytest.mark.usefixtures("counted_ids")


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[Results, Scene]:
    return write_labelled(tmp_path)


@pytest.fixture
def review(labelled: tuple[Results, Scene]) -> Review:
    review = Review(ReviewConfig(labels=labelled[0].storage.root, reviewer="ann"))
    review.warm_up()
    return review


def wait(review: Review, followed: str) -> dict[str, Any]:
    for _ in range(1200):
        state = review.followed(followed)
        if state["error"] or state["track"]:
            return state
        time.sleep(0.1)
    raise AssertionError(f"still following: {state}")


def test_a_followed_object_is_shown_kept_and_found(review: Review, labelled: tuple[Results, Scene]) -> None:
    """Frames are those that were labelled; before anyone keeps it, the archive knows nothing of it."""
    prompt = labelled[1].prompt(12, name="my star")
    followed = review.follow("crossing", prompt)["followed"]
    state = wait(review, followed)
    assert state == {"done": 6, "total": 6, "error": None, "track": {"track_id": FOLLOWED_ID, "frames": 6}}
    assert [track["track_id"] for track in review.video("crossing")["tracks"]] == [1]
    shown = review.video("crossing", followed)
    assert [(track["track_id"], track["category"]) for track in shown["tracks"]] == [
        (1, "blue dotted moon"),
        (FOLLOWED_ID, "my star"),
    ]
    assert shown["frames"] == [0, 4, 8, 12, 16, 20]
    masks = review.masks("crossing", 0, 20, followed)
    assert [[row["track_id"] for row in masks[frame]] for frame in (12, 20)] == [[1, FOLLOWED_ID], [FOLLOWED_ID]]
    assert review.catalogue.size == 1

    kept = review.keep(followed, "ben")
    assert kept == {"video_id": "crossing", "track_id": FIRST_ID, "row": 1}
    (decision,) = Reviews(review.results.storage).read().to_pylist()
    assert (decision["action"], decision["category"], decision["reviewer"]) == ("accept", "my star", "ben")
    (row,) = Additions(review.results.storage).tracks().to_pylist()
    assert (row["prompt"], row["reviewer"], row["frames"]) == (prompt, "ben", 6)
    assert [track["track_id"] for track in review.video("crossing")["tracks"]] == [1, FIRST_ID]
    assert [row["track_id"] for row in review.masks("crossing", 20, 20)[20]] == [FIRST_ID]
    assert review.crop("crossing", FIRST_ID)[:2] == b"\xff\xd8"
    found = review.find(Filter(), like=1)
    assert found["total"] == 2
    first = review.rows(found["found"], 0, 1)[0]
    assert (first["track_id"], first["pieces"][0]["action"]) == (FIRST_ID, "accept")
    assert {row["category"] for row in review.catalogue.verdicts()} == {"blue dotted moon"}
    assert review.keep(followed, "ben") == kept
    assert Additions(review.results.storage).tracks().num_rows == 1
    assert Reviews(review.results.storage).read().num_rows == 1

    other = Review(ReviewConfig(labels=review.config.labels))
    assert other.catalogue.size == 2
    (renamed,) = review.decide(
        [{"video_id": "crossing", "track_id": FIRST_ID, "action": "rename", "category": "star"}], "ann"
    )
    assert renamed["pieces"][0]["category"] == "star"


def test_keeping_that_broke_off_is_completed_by_the_next_attempt(
    review: Review, labelled: tuple[Results, Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = review.follow("crossing", labelled[1].prompt(12))["followed"]
    wait(review, followed)

    def away(*_: Any) -> None:
        raise OSError("the storage is away")

    with monkeypatch.context() as patch:
        patch.setattr(review.decided, "add", away)
        with pytest.raises(OSError, match="away"):
            review.keep(followed, "ben")
    assert review.followed(followed)["track"]
    assert review.keep(followed, "ben")["track_id"] == FIRST_ID
    assert Additions(review.results.storage).tracks().num_rows == 1
    assert Reviews(review.results.storage).read()["action"].to_pylist() == ["accept"]


def test_what_nobody_waits_for_is_given_up(review: Review, labelled: tuple[Results, Scene]) -> None:
    first, second = (review.follow("crossing", labelled[1].prompt(12))["followed"] for _ in range(2))
    review.unfollow(second)
    assert wait(review, second)["error"] == "it was cancelled"
    assert wait(review, first)["track"]
    review.unfollow(first)
    assert wait(review, first)["error"] is None
    with pytest.raises(ValueError, match="nothing was found yet"):
        review.keep(second, "ben")


def test_what_was_followed_is_shown_in_its_video_alone(review: Review, labelled: tuple[Results, Scene]) -> None:
    followed = review.follow("crossing", labelled[1].prompt(12))["followed"]
    put_video(labelled[0], part_name(2, 1), "other", str(labelled[1].path), {1: ("moon", 0.8, range(4))}, [0, 1, 2, 3])
    review.refresh()
    for ask in (review.video, lambda video_id, id_: review.masks(video_id, 0, 9, id_)):
        with pytest.raises(AbsentError, match="is not in video other"):
            ask("other", followed)


def test_what_others_add_is_seen(
    review: Review, labelled: tuple[Results, Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search waits until it is read."""
    other = Review(ReviewConfig(labels=review.config.labels))
    followed = other.follow("crossing", labelled[1].prompt(12))["followed"]
    wait(other, followed)
    other.keep(followed, "ben")
    assert review.catalogue.size == 1
    load = Embeddings.load
    monkeypatch.setattr(Embeddings, "load", lambda embeddings: (time.sleep(0.5), load(embeddings)))
    thread = threading.Thread(target=review.refresh)
    thread.start()
    while review.search.embeddings.catalogue.size < 2:
        time.sleep(0.01)
    assert not review.search.embeddings.ready.is_set()
    assert review.find(Filter(), like=1)["total"] == 2
    thread.join()


def test_why_an_object_is_not_followed_is_said(review: Review, tmp_path: Path) -> None:
    for prompt, error in (
        ("1s: box 0 0 5 5 = x", "no proposal fits"),
        ("99s: point 1 1 = x", "is beyond the end"),
    ):
        assert error in wait(review, review.follow("crossing", prompt)["followed"])["error"]
    with pytest.raises(ValueError, match="is not TIME: WHERE = NAME"):
        review.follow("crossing", "so")
    with pytest.raises(AbsentError, match="is not in the archive"):
        review.follow("absent", "1s: point 1 1 = x")
    with pytest.raises(AbsentError, match="was long ago"):
        review.followed("absent")
    (tmp_path / "crossing.mp4").unlink()
    assert wait(review, review.follow("crossing", "1s: point 1 1 = x")["followed"])["error"]


def test_settings_are_those_of_the_run_that_labelled(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with pytest.raises(ValueError, match="no run in this archive says with which settings"):
        read_settings(storage, "c")
    write_report(storage, fps=5, stride=1, tracker={"max_gap": 3, "association": {"kind": "hungarian"}}, unknown=1)
    with storage.write("runs/000002-00000000.json") as file:
        file.write(b"{")
    found = read_settings(storage, "c")
    assert (found.fps, found.stride, found.shots) == (5, 1, "cuts")
    assert found.tracker == VideoTrackerConfig(max_gap=3, association=found.tracker.association)
    assert found.tracker.association.kind == "hungarian"
    assert Settings() != found
