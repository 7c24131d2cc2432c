import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.archive.reviews import Reviews
from pipelines.review.config import ReviewConfig
from pipelines.review.session import Review
from pipelines.storage.files import Storage
from tests.pipelines.review.archives import EVIL_NAME, write_labels
from tests.pipelines.review.serving import Client, served
from tests.pipelines.video.clips import number

ACCEPT = {"video_id": "numbered", "track_id": 1, "action": "accept", "category": "red striped star"}


@pytest.fixture(scope="module")
def reader(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of tests that decide nothing."""
    folder = tmp_path_factory.mktemp("read") / "labels"
    review = Review(ReviewConfig(labels=write_labels(str(folder), str(videos)).storage.root))
    review.warm_up()
    with served(review) as client:
        yield client


@pytest.fixture
def client(review: Review) -> Iterator[Client]:
    with served(review) as client:
        yield client


@pytest.mark.parametrize("path", ["", "app.js", "api/archive", "api/find", "api/crop", "api/media", "nothing"])
def test_nothing_is_answered_without_the_token(reader: Client, path: str) -> None:
    for token in ("", "wrong"):
        answer = reader.get(path, token=token)
        assert answer.status == 403
        assert "needs the token of the URL that jobs.review printed" in answer.json()["error"]
        assert "Set-Cookie" not in answer.headers


def test_the_page_is_safe_from_other_sites(client: Client) -> None:
    page = client.get("")
    assert page.status == 200
    assert b"openvis review" in page.body
    assert "HttpOnly" in page.headers["Set-Cookie"]
    assert "SameSite=Strict" in page.headers["Set-Cookie"]
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    cookie = page.headers["Set-Cookie"].partition(";")[0]
    assert client.get("api/state", token="", headers={"Cookie": cookie}).status == 200
    form = client.post("api/decide", b'{"decisions": []}', kind="text/plain")
    assert (form.status, form.json()["error"]) == (400, "body: give JSON")


@pytest.mark.parametrize(
    "path",
    ["../pyproject.toml", "%2e%2e/%2e%2e/jobs/review.py", "/etc/passwd", "vendor/LICENSE.htm", "page/app.js", "%00"],
)
def test_no_path_leads_to_a_file(reader: Client, path: str) -> None:
    assert reader.get(path).status == 404


@pytest.mark.parametrize("video_id", ["../gone", "/etc/passwd", "file:///etc/passwd", "s3://bucket/key", "%00"])
@pytest.mark.parametrize("path", ["video", "media", "frame", "crop", "masks"])
def test_no_id_leads_to_a_file(reader: Client, path: str, video_id: str) -> None:
    answer = reader.get(f"api/{path}", id=video_id)
    assert answer.status == 404
    assert "is not in the archive" in answer.json()["error"]


def test_tracks_are_filtered_and_searched(reader: Client) -> None:
    assert reader.found(order="video")[:3] == [("numbered", 1), ("numbered", 2), ("numbered", 4)]
    assert reader.found(category="green plain ring") == [("old", 1), ("gone", 1)]
    assert reader.found(text="blue dotted moon")[0] == ("numbered", 2)
    assert set(reader.found(text="red striped star")[:3]) == {("numbered", 1), ("numbered", 4), ("old", 2)}
    ring = reader.get("api/rows", found=reader.get("api/find", video="gone").json()["found"], offset=0, limit=1)
    assert reader.found(like=ring.json()[0]["row"], min_score=0.65)[0] == ("old", 1)


@pytest.mark.parametrize(
    ("path", "query", "message"),
    [
        ("find", {"order": "size"}, "order: unknown value 'size'"),
        ("find", {"min_score": "high"}, "min_score: is 'high'; give a number"),
        ("find", {"size": "2"}, "size: is not a filter; choose from category"),
        ("find", {"text": "star,"}, "text: 'star,' has an empty word"),
        ("find", {"text": "platypus"}, "platypus"),
        ("find", {"like": "x"}, "like: is 'x'; give a whole number"),
        ("rows", {"limit": "1000"}, "limit: expected 1 to 500"),
        ("rows", {"limit": "0"}, "limit: expected 1 to 500"),
    ],
)
def test_bad_questions_are_named(reader: Client, path: str, query: dict[str, str], message: str) -> None:
    answer = reader.get(f"api/{path}", **query)
    assert answer.status == 400
    assert message in answer.json()["error"]


def test_a_video_comes_with_its_tracks_and_masks(reader: Client) -> None:
    video = reader.get("api/video", id="numbered").json()
    assert video["frames"] == list(range(0, 48, 2))
    assert [track["track_id"] for track in video["tracks"]] == [1, 2, 4]
    assert len(video["tracks"][1]["runs"]) == 2
    masks = reader.get("api/masks", id="numbered", first=18, last=31).json()
    assert list(map(int, masks)) == [18, 20, 22, 24, 26, 28, 30]
    assert [mask["track_id"] for mask in masks["18"]] == [1, 2]
    assert [mask["track_id"] for mask in masks["30"]] == [1, 4]
    assert reader.get("api/video", id=EVIL_NAME).json()["name"] == EVIL_NAME


def test_pictures_show_the_right_frames(reader: Client) -> None:
    crop = reader.get("api/crop", id="numbered", track=2)
    assert crop.headers["Content-Type"] == "image/jpeg"
    frame = Image.open(io.BytesIO(reader.get("api/frame", id="old", frame=13).body))
    assert number(np.asarray(frame)) == 13
    for path, query in (("crop", {"track": 1}), ("frame", {"frame": 0})):
        answer = reader.get(f"api/{path}", id="gone", **query)
        assert (answer.status, answer.json()["error"]) == (404, "the video cannot be read: file not found")
    assert reader.get("api/crop", id="numbered", track=3).status == 404
    assert reader.get("api/crop", id="numbered").status == 404


def test_a_video_that_stands_still_blocks_no_decision(
    client: Client, review: Review, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(review, "crop", lambda *_: go_on.wait(60) and b"crop")
    crops = [threading.Thread(target=client.get, args=("api/crop",)) for _ in range(40)]
    try:
        for crop in crops:
            crop.start()
        assert client.decide(ACCEPT).status == 200
        assert all(crop.is_alive() for crop in crops)
    finally:
        go_on.set()
        for crop in crops:
            crop.join()


def check_ranges(client: Client, content: bytes) -> None:
    whole = client.get("api/media", id="numbered")
    assert (whole.status, whole.body, whole.headers["Content-Type"]) == (200, content, "video/mp4")
    for asked, start, stop in (
        ("0-99", 0, 100),
        ("1000-", 1000, len(content)),
        ("-10", len(content) - 10, len(content)),
    ):
        part = client.get("api/media", id="numbered", headers={"Range": f"bytes={asked}"})
        assert (part.status, part.body) == (206, content[start:stop])
        assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(content)}"
    beyond = client.get("api/media", id="numbered", headers={"Range": f"bytes={len(content)}-"})
    assert beyond.status == 416
    assert client.get("api/media", id="gone").status in (404, 503)
    assert client.get("api/media", id="old").json()["error"].startswith("video: no browser plays this format")


def test_videos_are_sent_in_ranges(reader: Client, videos: Path) -> None:
    check_ranges(reader, (videos / "numbered.mp4").read_bytes())


def test_decisions_are_stored_at_once(client: Client, labels: str) -> None:
    stored = client.decide(ACCEPT, {"video_id": "numbered", "track_id": 2, "action": "split", "split_at": 32})
    assert [row["track_id"] for row in stored.json()] == [1, 2]
    rows = {row["track_id"]: row for row in Reviews(Storage(labels)).read().to_pylist()}
    assert (rows[1]["action"], rows[1]["category"], rows[1]["reviewer"]) == ("accept", "red striped star", "ann")
    assert rows[1]["config_fingerprint"] == "c"
    assert rows[2]["split_at"] == 32
    assert client.found(decision="accept") == [("numbered", 1)]
    client.decide({"video_id": "numbered", "track_id": 1, "action": "clear"})
    assert client.found(decision="accept") == []
    assert client.get("api/archive").json()["decided"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": "love"}, "action: unknown value 'love'"),
        ({"track_id": 3}, "track_id: video numbered has no track 3"),
        ({"track_id": True}, "track_id: is True"),
        ({"video_id": "../x"}, "video: ../x is not in the archive"),
        ({"action": "merge", "category": None, "merged_with": 9}, "merged_with: video numbered has no track 9"),
        ({"category": ""}, "category: is ''"),
        ({"time": "2020-01-01"}, "is not known"),
        ({"split_at": "4"}, "split_at: is '4'"),
    ],
)
def test_what_is_no_decision_is_refused_whole(
    client: Client, labels: str, change: dict[str, Any], message: str
) -> None:
    answer = client.decide(ACCEPT, ACCEPT | change)
    assert answer.status in (400, 404)
    assert message in answer.json()["error"]
    assert Reviews(Storage(labels)).read().num_rows == 0


def test_bodies_that_are_no_decisions_are_refused(client: Client) -> None:
    for body in (b"{", b"[]", b'{"decisions": 3}', b'{"decisions": [3]}', b'{"decisions": [{"video_id": "numbered"}]}'):
        assert client.post("api/decide", body).status in (400, 404)


def test_many_reviewers_at_once_lose_nothing(review: Review, labels: str) -> None:
    """Two servers of one archive, as on two machines, with four people each."""
    tracks = [("numbered", 1, "red striped star"), ("numbered", 2, "blue dotted moon"), ("old", 1, "green plain ring")]
    with served(review) as first, served(Review(review.config)) as second:

        def judge(client: Client, name: str) -> None:
            for _ in range(5):
                for video, track, category in tracks:
                    decision = {"video_id": video, "track_id": track, "action": "accept", "category": category}
                    assert client.decide(decision, reviewer=name).status == 200

        people = [
            threading.Thread(target=judge, args=(client, f"{name}{i}"))
            for i in range(4)
            for name, client in (("a", first), ("b", second))
        ]
        for person in people:
            person.start()
        for person in people:
            person.join()
        history = Reviews(Storage(labels)).history()
        assert history.num_rows == 8 * 5 * len(tracks)
        assert len(set(history["reviewer"].to_pylist())) == 8
        for client in (first, second):
            assert len(client.found(decision="accept")) == len(tracks)


def test_what_is_no_image_is_refused(reader: Client) -> None:
    answer = reader.post("api/find", b"no image", kind="image/png").json()
    assert answer["error"].startswith("image: is not a readable picture")


def test_s3(bucket: str, videos: Path, s3_environment: None) -> None:
    """Videos, labels and decisions on S3."""
    storage = Storage(bucket)
    for file in videos.iterdir():
        storage.put(file, f"videos/{file.name}")
    write_labels(f"{bucket}/labels", f"{bucket}/videos")
    review = Review(ReviewConfig(labels=f"{bucket}/labels"))
    review.warm_up()
    with served(review) as client:
        check_ranges(client, (videos / "numbered.mp4").read_bytes())
        assert client.get("api/crop", id="numbered", track=1).status == 200
        assert client.decide(ACCEPT).status == 200
        assert client.found(decision="accept") == [("numbered", 1)]
    assert Reviews(Storage(f"{bucket}/labels")).read().num_rows == 1
