"""The page without a server of ours: a folder on a static host, in a real browser."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pyarrow.parquet as pq
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Error, Page, expect

import jobs.review
from pipelines.archive.tables import Results
from pipelines.review import snapshot
from pipelines.review.catalogue import Filter
from pipelines.review.config import ReviewConfig
from pipelines.review.session import Review
from pipelines.review.snapshot import SNAPSHOT, write_snapshot
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name
from tests.pipelines.review.archives import EVIL_CATEGORY, EVIL_NAME, put_video
from tests.pipelines.review.browser import ON_SCREEN, needs_browser, play
from tests.pipelines.review.static_host import StaticHost, hosted

FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"order": "score"},
    {"order": "-uncertain", "min_score": 0.3, "max_score": 0.7},
    {"order": "-length"},
    {"order": "length", "min_frames": 5},
    {"order": "video"},
    {"category": "red striped star"},
    {"category": "blue dotted moon"},
    {"name": "NUMB"},
    {"video": "old"},
    {"decision": "undecided"},
    {"decision": "decided"},
    {"decision": "accept"},
    {"decision": "reject", "order": "score"},
    {"decision": "stale"},
)

ASK = """async (wanted) => {
    const { ask } = await import("./api.js");
    const { found, total } = await ask("find", wanted);
    return (await ask("rows", { found, offset: 0, limit: total })).map((row) => [row.video_id, row.track_id]);
}"""


def decide(review: Review) -> None:
    about: tuple[dict[str, Any], ...] = (
        {"video_id": "numbered", "track_id": 1, "action": "accept", "category": "red striped star"},
        {"video_id": "numbered", "track_id": 2, "split_at": 32, "action": "split"},
        {"video_id": "old", "track_id": 1, "action": "rename", "category": "blue dotted moon"},
        {"video_id": "old", "track_id": 2, "action": "reject", "category": "red striped star"},
    )
    review.decide(about, "ann@home")


@pytest.fixture
def folder(review: Review, tmp_path: Path) -> Path:
    """A snapshot with some decisions."""
    decide(review)
    write_snapshot(review, str(tmp_path / "snapshot"))
    return tmp_path / "snapshot"


@pytest.fixture
def host(folder: Path) -> Iterator[StaticHost]:
    with hosted(folder) as host:
        yield host


@pytest.fixture
def page(chromium: Browser, host: StaticHost) -> Iterator[Page]:
    """The page; no script may fail in it, and it may ask nobody but its host, nor for what there is not."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    page, problems, hosts = context.new_page(), list[str](), set[str]()
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.on("response", lambda answer: problems.append(answer.url) if answer.status >= 400 else None)
    page.goto(host.url)
    expect(page.locator(".card .name").first).to_be_visible()
    yield page
    hacked = page.evaluate("window.hacked")
    context.close()
    assert (problems, hacked) == ([], None)
    assert hosts <= {urlsplit(host.url).netloc, ""}


@needs_browser
def test_what_the_server_finds_is_found_without_it(page: Page, review: Review) -> None:
    for wanted in FILTERS:
        rows = review.rows(review.find(Filter(**wanted))["found"], 0, 100)
        expected = [[row["video_id"], row["track_id"]] for row in rows]
        assert page.evaluate(ASK, wanted) == expected, wanted
    (first,) = (row for row in review.rows(review.find(Filter())["found"], 0, 1))
    like = [row["video_id"] for row in review.rows(review.find(Filter(), like=first["row"])["found"], 0, 3)]
    assert sorted(video for video, _ in page.evaluate(ASK, {"like": 0})[:3]) == sorted(like)


@needs_browser
def test_tracks_are_seen_but_not_judged(page: Page, host: StaticHost) -> None:
    expect(page.locator(".card")).to_have_count(7)
    expect(page.locator("#card-0 .badge")).to_have_text("✓ accepted")
    expect(page.locator("#card-1 .name")).to_have_text(EVIL_CATEGORY)
    expect(page.locator("#card-1 .video")).to_have_text(EVIL_NAME)
    expect(page.locator("#card-2 .name")).to_have_text("blue dotted moon")
    expect(page.locator("#card-6 .missing")).to_have_text("the video cannot be read: file not found")
    loaded = "() => [...document.querySelectorAll('img.crop')].every((each) => each.naturalWidth === 256)"
    page.wait_for_function(loaded)
    status = page.locator(".status")
    expect(status).to_contain_text("search is off: a snapshot has no model that reads texts and images")
    expect(status).to_contain_text("decisions are off: this is a snapshot of 20")
    expect(page.get_by_role("button", name="Accept")).to_have_count(0)
    expect(page.get_by_label("Search tracks by text")).to_be_disabled()
    page.locator("#card-0").click()
    page.keyboard.press("r")
    expect(page.locator(".notice")).to_contain_text("Decisions cannot be stored")
    expect(page.locator("#card-0 .badge")).to_have_text("✓ accepted")
    page.keyboard.press("l")
    expect(page.locator(".chip")).to_contain_text("similar to track 1 (red striped star)")
    expect(page.locator("#card-2 .name")).to_have_text("red striped star")
    page.get_by_role("button", name="End the search").click()
    page.get_by_label("Categories with most tracks").get_by_role("button", name="green plain ring").click()
    expect(page.locator(".card")).to_have_count(1)


@needs_browser
def test_a_page_outlives_its_snapshot(chromium: Browser, host: StaticHost, folder: Path, review: Review) -> None:
    page = chromium.new_page()
    page.goto(host.url)
    expect(page.locator(".card .name").first).to_be_visible()
    write_snapshot(review, str(folder))
    page.keyboard.press("Enter")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    page.close()


@pytest.mark.slow
@needs_browser
def test_a_page_shows_what_was_written_again(chromium: Browser, host: StaticHost, folder: Path, review: Review) -> None:
    """A search for more like a track ends: its row has another number."""
    page = chromium.new_page()
    page.goto(host.url)
    page.locator("#card-0").click()
    page.keyboard.press("l")
    expect(page.locator(".chip")).to_have_count(1)
    review.decide([{"video_id": EVIL_NAME, "track_id": 1, "action": "accept", "category": EVIL_CATEGORY}], "ann")
    write_snapshot(review, str(folder))
    expect(page.locator("#card-1 .badge")).to_have_text("✓ accepted")
    expect(page.locator(".chip")).to_have_count(0)
    expect(page.locator(".notice")).to_contain_text("The labels have changed since")
    page.close()


@pytest.mark.slow
@needs_browser
def test_a_film_is_back_when_it_was_written_again(
    chromium: Browser, host: StaticHost, folder: Path, review: Review
) -> None:
    page, asked = chromium.new_page(), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(host.url)
    page.locator("#card-0").click()
    page.keyboard.press("Enter")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    page.evaluate("document.querySelector('.stage video').dispatchEvent(new Event('error'))")
    expect(page.locator(".stage .missing")).to_have_text("this browser cannot play the film of the video")
    write_snapshot(review, str(folder))
    data = json.loads((folder / SNAPSHOT).read_text())["data"]
    expect(page.locator(".stage video")).to_have_attribute("src", re.compile(data))
    expect(page.locator(".stage .missing")).to_have_count(0)
    assert not any("undefined" in url for url in asked)
    page.close()


@needs_browser
def test_rows_of_a_snapshot_are_not_those_of_the_next(
    chromium: Browser, host: StaticHost, folder: Path, review: Review
) -> None:
    page = chromium.new_page()
    page.add_init_script("window.setInterval = () => 0;")  # so that the page does not see it by itself
    page.goto(host.url)
    expect(page.locator(".card .name").first).to_be_visible()
    write_snapshot(review, str(folder))
    with pytest.raises(Error, match=r"embeddings.bin: Not Found"):
        page.evaluate(ASK, {"like": 0})
    assert len(page.evaluate(ASK, {"like": 0})) == 7
    page.close()


@needs_browser
@pytest.mark.slow
def test_masks_are_those_of_the_frame_on_the_screen(page: Page) -> None:
    """Frames are unevenly spaced, every second one was labelled; checked while it plays and at each step."""
    page.locator("#card-0").click()
    page.keyboard.press("Enter")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    expect(page.locator(".piece")).to_have_count(4)
    for at in range(1, 24):
        page.keyboard.press(".")
        expect(page.locator(".masks")).to_have_attribute("data-frame", str(2 * at))
        page.wait_for_function("() => !document.querySelector('.stage video').seeking")
        assert page.evaluate(ON_SCREEN) == [2 * at, 2 * at]
    page.evaluate("document.querySelector('.stage video').currentTime = 0")
    expect(page.locator(".masks")).to_have_attribute("data-frame", "0")
    for shown, masks in play(page, 8).items():
        assert masks & {shown, shown - 2}, (shown, masks)  # late by a frame at most


@needs_browser
def test_a_link_leads_to_a_track_of_a_video_that_no_browser_plays(page: Page, host: StaticHost) -> None:
    page.goto(f"{host.url}#category=green+plain+ring&open=old&track=2")
    expect(page.locator(".transport .what")).to_contain_text("track 2: red striped star")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    page.keyboard.press(".")
    expect(page.locator(".masks[data-frame='4']")).to_be_visible()
    page.wait_for_function("() => !document.querySelector('.stage video').seeking")
    assert page.evaluate(ON_SCREEN) == [4, 4]
    page.goto(f"{host.url}#open=gone&track=1")
    expect(page.locator(".stage .missing")).to_have_text("the video cannot be read: file not found")


@needs_browser
@pytest.mark.parametrize("width", [1280, 400])
def test_a_snapshot_has_no_accessibility_errors(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.locator("#card-0").click()
    page.keyboard.press("Enter")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
@needs_browser
def test_a_bucket_is_a_host(
    chromium: Browser, review: Review, bucket: str, s3_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    decide(review)
    labels = review.results.storage.root
    assert jobs.review.main(["--labels", labels, "--snapshot", f"{bucket}/public"]) == 1  # a video is missing
    out, err = capsys.readouterr()
    assert out.startswith("7 tracks of 4 videos, 0.")
    assert "gone.mp4: the video cannot be read: file not found" in err
    name = bucket.removeprefix("s3://")
    public = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{name}/*"}
    boto3.client("s3").put_bucket_policy(Bucket=name, Policy=json.dumps({"Statement": [public]}))
    page = chromium.new_page()
    page.goto(f"{s3_server}/{name}/public/index.html")
    expect(page.locator("#card-0 .badge")).to_have_text("✓ accepted")
    page.locator("#card-0").click()
    page.keyboard.press("Enter")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    page.close()


def test_a_snapshot_is_replaced_as_a_whole(review: Review, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that breaks off changes nothing that the page shows; the next one leaves none of it behind."""
    first = json.loads((folder / SNAPSHOT).read_text())
    with monkeypatch.context() as patched:
        patched.setattr(snapshot, "_write_embeddings", fail)
        with pytest.raises(OSError, match="disk is full"):
            write_snapshot(review, str(folder))
    broken = json.loads((folder / SNAPSHOT).read_text())
    assert (broken["data"], len(broken["writing"])) == (first["data"], 1)
    assert len(list(folder.glob("data-*"))) == 2
    summary = write_snapshot(review, str(folder))
    second = json.loads((folder / SNAPSHOT).read_text())
    assert second["archive"]["numbering"] == second["data"]
    assert [path.name for path in folder.glob("data-*")] == [second["data"]] != [first["data"]]
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != SNAPSHOT]
    assert summary.size == sum(path.stat().st_size for path in files)


def fail(*_: object) -> None:
    raise OSError(28, "the disk is full", "embeddings.bin")


def test_a_snapshot_that_was_never_finished_is_recognised(
    review: Review, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_write_embeddings", fail)
    with pytest.raises(OSError, match="disk is full"):
        write_snapshot(review, str(tmp_path / "new"))
    assert json.loads((tmp_path / "new" / SNAPSHOT).read_text())["data"] is None
    assert not (tmp_path / "new" / "index.html").exists()


def test_a_video_without_its_labelled_frames_has_a_film(videos: Path, tmp_path: Path) -> None:
    """Another one lies in its place: it is shorter."""
    results = Results(Storage(str(tmp_path / "labels")))
    uri, times = str(videos / "old.avi"), [number / 8 for number in range(40)]
    put_video(results, part_name(1), "old", uri, {1: ("red striped star", 0.9, (30,))}, times)
    review = Review(ReviewConfig(labels=results.storage.root))
    review.search.embeddings.load()
    summary = write_snapshot(review, str(tmp_path / "snapshot"))
    assert summary.failures == {uri: "frame 30 cannot be decoded"}
    (about,) = (json.loads(path.read_text()) for path in (tmp_path / "snapshot").rglob("about.json"))
    assert (about["playable"], about["missing"]) == (True, None)
    (track,) = pq.read_table(next((tmp_path / "snapshot").rglob("tracks.parquet"))).to_pylist()
    assert track["missing"] == "frame 30 cannot be decoded"


@pytest.mark.parametrize("name", ["notes.txt", SNAPSHOT])
def test_a_folder_with_other_files_is_refused(labels: str, tmp_path: Path, name: str, capsys: Any) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / name).write_text("{}")
    assert jobs.review.main(["--labels", labels, "--snapshot", str(other)]) == 2
    assert "snapshot: " in (error := capsys.readouterr().err)
    assert "holds other files; give an empty folder" in error
    assert [path.name for path in other.iterdir()] == [name]


def test_two_snapshots_to_one_folder_do_not_mix(
    review: Review, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, whole = str(tmp_path / "both"), snapshot._write_embeddings

    def interrupted(*arguments: Any) -> Any:
        monkeypatch.setattr(snapshot, "_write_embeddings", whole)
        write_snapshot(review, output)
        return whole(*arguments)

    monkeypatch.setattr(snapshot, "_write_embeddings", interrupted)
    with pytest.raises(RuntimeError, match="another snapshot was written"):
        write_snapshot(review, output)
    data = json.loads((tmp_path / "both" / SNAPSHOT).read_text())["data"]
    assert (tmp_path / "both" / data / "tracks.parquet").exists()


def test_a_snapshot_tells_nothing_of_the_machine(review: Review, folder: Path, videos: Path) -> None:
    """No path, no reviewer: it may be public."""
    said = [path.read_bytes() for path in folder.rglob("*") if path.suffix in (".json", ".parquet")]
    tables = [pq.read_table(path).to_pylist() for path in folder.rglob("*.parquet")]
    for word in (str(videos), review.results.storage.root, "ann@home"):
        assert not any(word.encode() in content for content in said)
        assert word not in json.dumps(tables)


def test_an_archive_with_many_tracks_has_no_embeddings(
    review: Review, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "EMBEDDING_BYTES", 100)
    write_snapshot(review, str(tmp_path / "large"))
    known = json.loads((tmp_path / "large" / SNAPSHOT).read_text())
    assert known["archive"]["similar_off"] == "the archive has too many tracks for a snapshot to hold their embeddings"
    assert list((tmp_path / "large").rglob("embeddings.bin")) == []


def test_a_snapshot_and_a_report_are_two_runs(labels: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert jobs.review.main(["--labels", labels, "--snapshot", "a", "--report", "b.json"]) == 2
    assert "snapshot: cannot be given together with report" in capsys.readouterr().err
