"""The page in a real browser; what is decided there is in `test_page_decisions.py`."""

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Route, expect

from pipelines.archive.config import DuplicatesConfig
from pipelines.archive.duplicates import find_duplicates
from pipelines.archive.reviews import Reviews
from pipelines.archive.tables import Results
from pipelines.review.catalogue import Catalogue
from pipelines.review.config import ReviewConfig
from pipelines.review.session import Review
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name
from tests.pipelines.review.archives import EVIL_CATEGORY, EVIL_NAME, decided, put_video, write_labels
from tests.pipelines.review.browser import (
    ON_SCREEN,
    Open,
    choose,
    names,
    needs_browser,
    play,
    press,
    rename,
    wait_for,
)
from tests.pipelines.review.serving import Client, served
from tests.pipelines.video.clips import VFR

pytestmark = needs_browser


OPACITY = """([x, y]) => document.querySelector(".masks").getContext("2d").getImageData(x, y, 1, 1).data[3]"""


def test_duplicates_are_shown_together(visit: Open, labels: str, review: Review) -> None:
    page = visit()
    expect(page.get_by_label("only duplicates")).to_have_count(0)
    find_duplicates(DuplicatesConfig(labels=labels))
    review.catalogue = Catalogue(review.results, review.decided)  # as after a restart
    page.reload()
    page.get_by_label("only duplicates").check()
    expect(page.locator(".card .name")).to_have_text(["red striped star"] * 3 + ["green plain ring"] * 2)
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(".card")).to_have_count(7)


def test_tracks_are_shown_filtered_and_searched(visit: Open) -> None:
    page = visit()
    assert len(names(page)) == 7
    expect(page.locator(".status")).to_contain_text("7 of 7 tracks")
    page.get_by_label("Decision").select_option("undecided")
    page.get_by_label("Score from").fill("0.55")
    press(page, "Tab")
    expect(page.locator(".card")).to_have_count(4)
    page.get_by_role("button", name="Clear filters").click()
    page.get_by_label("Categories with most tracks").get_by_role("button", name="green plain ring").click()
    expect(page.locator(".card")).to_have_count(2)
    page.reload()
    expect(page.locator(".card")).to_have_count(2)
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(".card")).to_have_count(7)
    press(page, "/")
    page.keyboard.type("blue dotted moon")
    press(page, "Enter")
    expect(page.locator(".chip")).to_contain_text("blue dotted moon")
    expect(page.locator("#card-0 .name")).to_have_text("blue dotted moon")
    page.get_by_role("button", name="End the search").click()
    expect(page.locator("#card-0 .name")).to_have_text("red striped star")
    choose(page, 0)
    press(page, "l")
    expect(page.locator(".chip")).to_contain_text("similar to track 1 (red striped star)")
    expect(page.locator("#card-2 .name")).to_have_text("red striped star")


def test_a_slow_search_changes_nothing_after_a_newer_one(visit: Open) -> None:
    page = visit()
    held = list[Route]()
    page.route(re.compile(r"/api/find\?.*text=(red|green)"), lambda route: held.append(route))
    for text in ("red striped star", "green plain ring", "blue dotted moon"):
        page.get_by_label("Search tracks by text").fill(text)
        press(page, "Enter")
    expect(page.locator("#card-0 .name")).to_have_text("blue dotted moon")
    slow, failing = held
    with page.expect_response(slow.request.url):
        slow.continue_()
    failing.abort()
    page.wait_for_timeout(500)
    expect(page.locator("#card-0 .name")).to_have_text("blue dotted moon")
    expect(page.locator(".notice")).to_have_count(0)


def test_tracks_that_could_not_be_read_are_read_again(visit: Open) -> None:
    page = visit()
    page.route("**/api/rows*", lambda route: route.abort())
    press(page, "v")
    expect(page.locator(".card .waiting")).to_have_count(3)
    page.unroute("**/api/rows*")
    expect(page.locator(".card .name")).to_have_count(3)


def test_tracks_out_of_sight_are_read_again_when_they_come_into_sight(visit: Open) -> None:
    page, asked = visit(), list[str]()
    page.on("request", lambda request: asked.append(request.url) if "api/rows" in request.url else None)
    page.evaluate("""async () => {
        const [{ Tracks }, { ask }] = await Promise.all([import("./grid.js"), import("./api.js")]);
        const tracks = new Tracks({ ...(await ask("find")), total: 600 }, () => {}, () => {}, false);
        for (let block = 0; block < 10; block++) await tracks.read(block);
        await tracks.reread(300);
        tracks.need(0, 119);
        tracks.need(0, 119);
    }""")
    wait_for(page, lambda: len(asked) >= 15, f"asked for {len(asked)} of 15 blocks")
    blocks = [int(parse_qs(urlsplit(url).query)["offset"][0]) // 60 for url in asked]
    assert blocks == [*range(10), 4, 5, 6, 0, 1]


def test_masks_that_could_not_be_read_are_read_again(visit: Open) -> None:
    page = visit()
    page.route("**/api/masks*", lambda route: route.abort())
    choose(page, 0)
    press(page, "Enter")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    assert page.evaluate(OPACITY, [10, 20]) == 0
    page.unroute("**/api/masks*")
    page.wait_for_function(f"() => ({OPACITY})([10, 20]) > 0")


def test_what_was_found_too_long_ago_is_found_again(visit: Open, client: Client) -> None:
    page = visit()
    for _ in range(16):
        client.get("api/find")
    choose(page, 2)
    client.decide({"video_id": "numbered", "track_id": 1, "action": "accept", "category": "red striped star"})
    expect(page.locator("#card-0 .badge")).to_have_text("✓ accepted")
    expect(page.locator("#card-2")).to_have_attribute("aria-selected", "true")


def test_what_is_being_typed_stays_while_the_page_changes(visit: Open, client: Client) -> None:
    page = visit()
    page.get_by_label("Score from").focus()
    page.keyboard.type("0.5")
    client.decide({"video_id": "numbered", "track_id": 1, "action": "accept", "category": "red striped star"})
    expect(page.locator("#card-0 .badge")).to_have_text("✓ accepted")
    page.keyboard.type("5")
    press(page, "Tab")
    expect(page.locator(".card")).to_have_count(4)


def test_masks_are_those_of_the_frame_on_the_screen(visit: Open) -> None:
    """Frames are unevenly spaced, every second one was labelled; checked while it plays and at each step."""
    page = visit()
    choose(page, 0)
    press(page, "Enter")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    for at in range(1, 24):
        press(page, ".")
        expect(page.locator(".masks")).to_have_attribute("data-frame", str(2 * at))
        page.wait_for_function("() => !document.querySelector('.stage video').seeking")
        shown, drawn = page.evaluate(ON_SCREEN)
        assert (shown, drawn) == (2 * at, 2 * at)
    page.evaluate("document.querySelector('.stage video').currentTime = 0")
    expect(page.locator(".masks")).to_have_attribute("data-frame", "0")
    for shown, masks in play(page, 10).items():
        assert masks & {shown // 2 * 2, (shown - 1) // 2 * 2}, (shown, masks)  # late by a frame at most


@pytest.mark.parametrize("card", [0, 2])
@pytest.mark.nightly
def test_masks_of_new_labels_appear_in_the_open_video(visit: Open, review: Review, card: int) -> None:
    """As many frames are labelled as before, in a file that plays and in frames of the server."""
    page = visit()
    choose(page, card)
    press(page, "Enter")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    press(page, ".")
    expect(page.locator(".masks")).to_have_attribute("data-frame", str((2, 0, 4)[card]))
    page.evaluate("document.querySelector('.stage .picture').isSame = true")
    assert page.evaluate(OPACITY, [20, 52]) == 0
    video = page.evaluate("document.querySelector('.player h2').title")
    known = review.catalogue.video(video)
    assert known is not None
    times = [number / 8 for number in range(16)] if video == "old" else list(map(float, VFR))
    tracks = {3: ("red striped star", 0.9, range(0, 16, 4) if video == "old" else range(0, 48, 2))}
    put_video(review.results, part_name(2), video, known["uri"], tracks, times)
    page.wait_for_function(f"() => ({OPACITY})([20, 52]) > 0")
    assert page.evaluate(OPACITY, [20, 24]) == 0
    assert page.evaluate("document.querySelector('.stage .picture').isSame")
    expect(page.locator(".masks")).to_have_attribute("data-frame", str((2, 0, 4)[card]))


def test_a_track_is_chosen_by_a_click_into_the_picture(visit: Open) -> None:
    page = visit()
    choose(page, 0)
    press(page, "Enter")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    box = page.locator(".masks").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 10 / 128, box["y"] + box["height"] * 38 / 96)
    expect(page.locator(".transport .what")).to_contain_text("track 2: blue dotted moon")


def test_what_no_browser_plays_is_shown_by_frames(visit: Open) -> None:
    page = visit()
    choose(page, 2)
    press(page, "Enter")
    expect(page.locator(".stage img")).to_be_visible()
    expect(page.locator(".stage .hint")).to_contain_text("frames by the server")
    press(page, ".", ".")
    expect(page.locator(".masks[data-frame='8']")).to_be_visible()
    page.wait_for_function("() => document.querySelector('.stage img').complete")
    shown = page.evaluate(ON_SCREEN.replace(".stage video", ".stage img"))
    assert shown == [8, 8]


def test_a_missing_video_is_a_sentence(visit: Open, labels: str) -> None:
    page = visit()
    expect(page.locator("#card-6 .missing")).to_have_text("the video cannot be read: file not found")
    choose(page, 6)
    press(page, "Enter")
    expect(page.locator(".stage .missing")).to_have_text("the video cannot be read: file not found")
    press(page, "r")
    expect(page.locator("#card-6 .badge")).to_have_text("✗ rejected")


def test_hostile_names_are_text(visit: Open) -> None:
    """As a category and as the name of a file; `visit` checks that nothing of them ran."""
    page = visit()
    expect(page.locator("#card-1 .name")).to_have_text(EVIL_CATEGORY)
    expect(page.locator("#card-1 .video")).to_have_text(EVIL_NAME)
    choose(page, 1)
    press(page, "Enter")
    expect(page.locator(".player h2")).to_have_text(EVIL_NAME)
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    rename(page, "<b onclick=alert(1)>bold</b>")
    expect(page.locator("#card-1 .name")).to_have_text("<b onclick=alert(1)>bold</b>")
    assert page.locator("b").count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("search", [[], ["l"]])
def test_labels_that_have_changed_are_told(visit: Open, review: Review, search: list[str]) -> None:
    """A search for more like a track ends: its row has another number."""
    page = visit()
    choose(page, 0)
    press(page, *search)
    expect(page.locator(".chip")).to_have_count(len(search))
    put_video(review.results, part_name(2), "new", "new.mp4", {1: ("red striped star", 0.99, (0, 1))}, [0, 1])
    expect(page.locator(".card .name")).to_have_count(8)
    expect(page.locator(".chip")).to_have_count(0)
    told = "The labels have changed since; what is shown is found again."
    expect(page.locator(".notice")).to_have_text(told)
    press(page, "v")
    expect(page.locator(".notice")).to_have_count(0)


def test_an_archive_that_could_not_be_read_is_read_again(visit: Open, client: Client) -> None:
    page = visit().context.new_page()
    for path in ("archive", "find"):
        page.route(f"**/api/{path}*", lambda route: route.abort(), times=1)
    page.goto(client.url)
    expect(page.locator(".loading")).to_contain_text("fetch")
    expect(page.locator(".card .name")).to_have_count(7)
    expect(page.locator(".notice")).to_have_count(0)


@pytest.mark.slow
def test_two_people_see_each_other(visit: Open, labels: str) -> None:
    ann, bob = visit(), visit()
    for page, name in ((ann, "ann"), (bob, "bob")):
        page.get_by_label("Reviewer").fill(name)
        press(page, "Tab")
    choose(ann, 0)
    press(ann, "a")
    choose(bob, 2)
    press(bob, "r")
    expect(bob.locator("#card-0 .badge")).to_have_text("✓ accepted")
    expect(ann.locator("#card-2 .badge")).to_have_text("✗ rejected")
    assert set(Reviews(Storage(labels)).read()["reviewer"].to_pylist()) == {"ann", "bob"}


@pytest.mark.nightly
def test_what_others_add_leaves_the_search_and_the_chosen_track(visit: Open, labels: str) -> None:
    page = visit()
    press(page, "/")
    page.keyboard.type("red striped star")
    press(page, "Enter")
    expect(page.locator("#card-0 .about")).to_contain_text("≈")
    index = names(page).index("blue dotted moon")
    choose(page, index)
    chosen = page.locator(".card[aria-selected=true] .name")
    ben = Review(ReviewConfig(labels=labels, reviewer="ben"))
    put_video(
        Results(Storage(labels)), part_name(2, 1), "new", "new.mp4", {1: ("red striped star", 0.99, (0, 1))}, [0, 1]
    )
    rejected = {"video_id": "numbered", "track_id": 2, "action": "reject", "category": "blue dotted moon"}
    ben.decide([rejected], "ben")
    expect(page.locator(".card")).to_have_count(8)
    expect(page.locator(f"#card-{index + 1} .badge")).to_have_text("✗ rejected")
    expect(page.locator("#card-0 .about")).to_contain_text("≈")
    expect(page.locator(f"#card-{index + 1}")).to_have_attribute("aria-selected", "true")
    expect(chosen).to_have_text("blue dotted moon")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_the_page_has_no_accessibility_errors(visit: Open, width: int, scheme: str) -> None:
    page = visit(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    choose(page, 0)
    press(page, "a", "r")
    expect(page.locator(".badge")).to_have_count(2)
    axe = Axe()

    def check() -> None:
        found = axe.run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    check()
    choose(page, 0)
    press(page, "Enter")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    check()
    press(page, "n")
    check()
    press(page, "Escape", "?")
    check()


def test_everything_works_by_keys(visit: Open, labels: str) -> None:
    page = visit()
    page.locator(".grid").focus()
    press(page, "ArrowRight", "ArrowRight", "Home", "End", "ArrowLeft")
    expect(page.locator("#card-5")).to_have_attribute("aria-selected", "true")
    press(page, "Enter", "r")
    expect(page.locator("#card-5 .badge")).to_have_text("✗ rejected")
    press(page, "Escape")
    expect(page.locator(".player")).to_have_count(0)
    press(page, "u")
    expect(page.locator(".badge")).to_have_count(0)


def test_videos_on_s3_play(chromium: Browser, bucket: str, videos: Path) -> None:
    storage = Storage(bucket)
    for file in videos.iterdir():
        storage.put(file, f"videos/{file.name}")
    labels = write_labels(f"{bucket}/labels", f"{bucket}/videos").storage.root
    with served(Review(ReviewConfig(labels=labels))) as client:
        page = chromium.new_context().new_page()
        page.goto(client.url)
        choose(page, 0)
        press(page, "Enter")
        expect(page.locator(".masks[data-frame='0']")).to_be_visible()
        press(page, ".")
        expect(page.locator(".masks[data-frame='2']")).to_be_visible()
        page.wait_for_function("() => !document.querySelector('.stage video').seeking")
        assert page.evaluate(ON_SCREEN) == [2, 2]
        press(page, "a")
        expect(page.locator("#card-0 .badge")).to_have_text("✓ accepted")
        page.context.close()
    assert decided(labels) == {("numbered", 1, None): ("accept", "red striped star")}
