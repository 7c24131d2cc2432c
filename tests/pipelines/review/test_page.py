"""The page in a real browser."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from pipelines.archive.config import DuplicatesConfig
from pipelines.archive.duplicates import find_duplicates
from pipelines.archive.reviews import Reviews
from pipelines.archive.tables import Results
from pipelines.review.catalogue import Catalogue
from pipelines.review.config import ReviewConfig
from pipelines.review.session import Review
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name
from tests.pipelines.review.archives import EVIL_CATEGORY, EVIL_NAME, put_video, write_labels
from tests.pipelines.review.browser import ON_SCREEN, Open, choose, names, needs_browser, play, press, taken, wait_for
from tests.pipelines.review.serving import Client, served
from tests.pipelines.video.clips import VFR
from tests.waiting import wait_until

pytestmark = needs_browser


OPACITY = """([x, y]) => document.querySelector(".masks").getContext("2d").getImageData(x, y, 1, 1).data[3]"""


def decided(labels: str) -> dict[tuple[str, int, int | None], tuple[str, str | None]]:
    rows = Reviews(Storage(labels)).read().to_pylist()
    return {(row["video_id"], row["track_id"], row["split_at"]): (row["action"], row["category"]) for row in rows}


def rename(page: Page, name: str) -> None:
    press(page, "n")
    page.get_by_role("dialog").get_by_label("Category").fill(name)
    press(page, "Enter")


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


def test_decisions_survive_a_reload_and_are_undone(visit: Open, labels: str) -> None:
    page = visit()
    choose(page, 0)
    press(page, "a")
    expect(page.locator("#card-0 .badge")).to_have_text("✓ accepted")
    expect(page.locator("#card-1")).to_have_attribute("aria-selected", "true")  # on to the next
    press(page, "r")
    expect(page.locator("#card-1 .badge")).to_have_text("✗ rejected")
    choose(page, 2)
    rename(page, "blue dotted moon")
    expect(page.locator("#card-2 .name")).to_have_text("blue dotted moon")
    assert decided(labels) == {
        ("numbered", 1, None): ("accept", "red striped star"),
        (EVIL_NAME, 1, None): ("reject", EVIL_CATEGORY),
        ("old", 1, None): ("rename", "blue dotted moon"),
    }
    page.reload()
    expect(page.locator("#card-2 .badge")).to_have_text("✎ renamed")
    expect(page.locator(".status")).to_contain_text("3 decided")
    press(page, "u")
    expect(page.locator("#card-2 .badge")).to_have_count(0)
    press(page, "Control+z", "u")
    expect(page.locator(".badge")).to_have_count(0)
    assert decided(labels) == {}
    press(page, "u")
    expect(page.locator(".notice")).to_have_text("Nothing to undo.")


def test_a_held_key_decides_once(visit: Open, labels: str) -> None:
    """But it steps through a video."""
    page = visit()
    choose(page, 0)
    for key in ("r", "r", "r"):
        page.keyboard.down(key)
    page.keyboard.up("r")
    expect(page.locator("#card-0 .badge")).to_have_text("✗ rejected")
    press(page, "a")
    expect(page.locator("#card-1 .badge")).to_have_text("✓ accepted")
    assert decided(labels) == {
        ("numbered", 1, None): ("reject", "red striped star"),
        (EVIL_NAME, 1, None): ("accept", EVIL_CATEGORY),
    }
    choose(page, 0)
    press(page, "Enter")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    for key in (".", "."):
        page.keyboard.down(key)
    page.keyboard.up(".")
    expect(page.locator(".masks")).to_have_attribute("data-frame", "4")


def test_tracks_are_split_and_merged(visit: Open, labels: str) -> None:
    page = visit()
    choose(page, 0)
    press(page, "Enter")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    press(page, "s")
    expect(page.locator(".notice")).to_contain_text("go to a later frame")
    press(page, ".", ".", ".")
    expect(page.locator(".masks[data-frame='6']")).to_be_visible()
    press(page, "s")
    piece = page.get_by_role("option", name="1 from 6")
    expect(piece).to_be_visible()
    piece.click()
    press(page, "r")
    expect(piece).to_contain_text("✗ rejected")
    page.get_by_role("option", name="4 red striped star").click()
    press(page, "m")
    page.get_by_role("dialog").get_by_label("Track of the same object").select_option("2")
    press(page, "Enter")
    expect(page.get_by_role("option", name="4 red striped star")).to_contain_text("⇢ merged into 2")
    assert decided(labels) == {
        ("numbered", 1, 6): ("reject", "red striped star"),
        ("numbered", 4, None): ("merge", None),
    }
    press(page, "u", "u", "u")
    expect(piece).to_have_count(0)
    assert decided(labels) == {}


def test_a_renamed_piece_is_accepted_under_its_new_name(visit: Open, labels: str) -> None:
    page = visit()
    choose(page, 0)
    press(page, "Enter")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    press(page, ".", ".", ".")
    expect(page.locator(".masks[data-frame='6']")).to_be_visible()
    press(page, "s")
    piece = page.get_by_role("option", name="1 from 6")
    piece.click()
    expect(piece).to_have_attribute("aria-selected", "true")
    rename(page, "dog")
    expect(piece).to_contain_text("✎ renamed")
    press(page, "n")
    expect(page.get_by_role("dialog").get_by_label("Category")).to_have_value("dog")
    press(page, "Escape", "a")
    expect(piece).to_contain_text("dog ✓ accepted")
    assert decided(labels) == {("numbered", 1, 6): ("accept", "dog")}


CLOSE_AND_PRESS = """key => {
    document.querySelector("dialog").close();
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
}"""


def test_keys_that_follow_a_dialog_at_once_are_not_lost(visit: Open, labels: str) -> None:
    page = visit()
    choose(page, 0)
    press(page, "n")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    page.evaluate(CLOSE_AND_PRESS, "n")
    expect(dialog).to_be_visible()
    page.evaluate(CLOSE_AND_PRESS, "r")
    expect(dialog).not_to_be_visible()
    expect(page.locator("#card-0")).to_contain_text("✗ rejected")


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


def test_decisions_wait_for_a_server_that_is_away(chromium: Browser, review: Review, labels: str) -> None:
    """They are sent when it is back, once each, also if its answer was lost."""
    with served(review) as client:
        page = chromium.new_context().new_page()
        page.route("**/api/decide*", lambda route: route.abort())
        page.goto(client.url)
        choose(page, 0)
        press(page, "a")
        expect(page.locator(".notice")).to_contain_text("1 decisions are not stored yet, trying again")
        page.unroute("**/api/decide*")
        page.route("**/api/decide*", lambda route: (route.fetch(), route.abort()), times=1)  # its answer is lost
        expect(page.locator("#card-0 .badge")).to_have_text("✓ accepted")
        page.context.close()
    assert Reviews(Storage(labels)).history().num_rows == 1


def test_a_decision_is_undone_while_the_one_before_waits(visit: Open, labels: str) -> None:
    page = visit()
    page.route("**/api/decide*", lambda route: route.abort())
    for key in ("a", "r"):
        choose(page, 0)
        press(page, key)
    expect(page.locator(".notice")).to_contain_text("2 decisions are not stored yet")
    press(page, "u")
    page.unroute("**/api/decide*")
    expect(page.locator(".notice")).to_contain_text("Undone: track 1.")
    expect(page.locator("#card-0 .badge")).to_have_text("✓ accepted")
    wait_until(lambda: decided(labels) == {("numbered", 1, None): ("accept", "red striped star")})
    press(page, "u")
    expect(page.locator("#card-0 .badge")).to_have_count(0)


def test_a_decision_is_undone_before_the_player_has_read_the_one_before(visit: Open) -> None:
    page = visit()
    choose(page, 0)
    press(page, "v")
    expect(page.locator(".card .name")).to_have_count(3)
    press(page, "Enter")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    page.route("**/api/video*", lambda route: None)  # never answered
    for key, badge in (("a", "✓ accepted"), ("r", "✗ rejected")):
        choose(page, 0)
        press(page, key)
        expect(page.locator("#card-0 .badge")).to_have_text(badge)
    press(page, "u")
    expect(page.locator("#card-0 .badge")).to_have_text("✓ accepted")


def test_a_decision_of_a_dialog_is_undone_to_what_was_stored_meanwhile(visit: Open) -> None:
    page = visit()
    held = list[Route]()
    page.route("**/api/decide*", lambda route: held.append(route))
    choose(page, 0)
    press(page, "a")
    choose(page, 0)
    press(page, "n")
    taken(page, held).continue_()
    page.unroute("**/api/decide*")
    expect(page.locator("#card-0 .badge")).to_have_text("✓ accepted")
    page.get_by_role("dialog").get_by_label("Category").fill("dog")
    press(page, "Enter")
    expect(page.locator("#card-0 .badge")).to_have_text("✎ renamed")
    press(page, "u")
    expect(page.locator("#card-0 .badge")).to_have_text("✓ accepted")


def test_a_name_that_is_not_stored_yet_is_accepted(visit: Open, labels: str) -> None:
    page = visit()
    page.route("**/api/decide*", lambda route: route.abort())
    choose(page, 0)
    rename(page, "dog")
    press(page, "a")
    expect(page.locator(".notice")).to_contain_text("2 decisions are not stored yet")
    page.unroute("**/api/decide*")
    expect(page.locator("#card-0 .badge")).to_have_text("✓ accepted")
    assert decided(labels) == {("numbered", 1, None): ("accept", "dog")}


def test_nothing_is_decided_about_what_is_not_shown_yet(visit: Open, labels: str) -> None:
    """Neither about the card instead, nor at a frame of the video before."""
    page = visit()
    choose(page, 0)
    press(page, "Enter")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    press(page, ".")
    expect(page.locator(".masks[data-frame='2']")).to_be_visible()
    page.route("**/api/video*", lambda route: None)  # never answered
    choose(page, 2)
    press(page, "s")
    expect(page.locator(".notice")).to_contain_text("go to the first frame of the new piece")
    page.evaluate("location.hash = '#open=numbered&track=2'")
    page.reload()
    expect(page.locator("#card-0 .name")).to_be_visible()
    press(page, "r")
    expect(page.locator(".notice")).to_contain_text("Choose a track first.")
    assert decided(labels) == {}


def test_a_player_stays_while_the_server_is_away(visit: Open) -> None:
    page = visit()
    choose(page, 0)
    press(page, "v", "Enter")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    page.route("**/api/video*", lambda route: route.abort())
    press(page, "a")
    expect(page.locator(".player > .missing")).to_contain_text("fetch")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    page.unroute("**/api/video*")
    expect(page.locator(".player > .missing")).to_have_count(0)


def test_decisions_that_were_refused_are_shown_until_they_are_dismissed(visit: Open, labels: str) -> None:
    page = visit()
    held = list[Route]()
    page.route("**/api/decide*", lambda route: held.append(route))
    choose(page, 0)
    press(page, "a", "a", "a")
    for status, reason in ((400, "track_id: unknown"), (404, "labels: gone")):
        taken(page, held).fulfill(status=status, json={"error": reason})
        expect(page.locator(".refused")).to_contain_text("refused")
    taken(page, held).continue_()
    expect(page.locator("#card-2 .badge")).to_have_text("✓ accepted")
    expect(page.locator(".refused")).to_contain_text("2 decisions were refused, the first: track_id: unknown")
    page.get_by_role("button", name="Dismiss what was refused").click()
    expect(page.locator(".refused")).to_have_count(0)
    assert decided(labels) == {("old", 1, None): ("accept", "green plain ring")}


def test_decisions_of_a_page_that_was_closed_are_sent_by_the_next(
    chromium: Browser, review: Review, labels: str
) -> None:
    """The server was ended before, and started again on the same port, with another token."""
    context = chromium.new_context()
    with served(review) as client:
        page = context.new_page()
        page.goto(client.url)
        choose(page, 0)
        port = int(client.root.rpartition(":")[2])
    for key in ("a", "a"):
        press(page, key)
    expect(page.locator(".notice")).to_contain_text("2 decisions are not stored yet")
    page.close()
    with served(Review(review.config), port) as client:
        page = context.new_page()
        page.goto(client.url)
        expect(page.locator("#card-0 .badge")).to_have_text("✓ accepted")
        expect(page.locator("#card-1 .badge")).to_have_text("✓ accepted")
        assert page.evaluate("Object.keys(localStorage).filter((key) => key.includes('outbox'))") == []
    context.close()
    assert Reviews(Storage(labels)).history().num_rows == 2


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


def test_without_the_right_to_write_nothing_is_decided(
    chromium: Browser, labels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise ValueError("output: cannot write to labels/reviews (Read-only file system); choose another folder")

    monkeypatch.setattr(Storage, "check_writable", refuse)
    undo = f"'openvis-undo {labels}'"
    with served(Review(ReviewConfig(labels=labels))) as client:
        page = chromium.new_context().new_page()
        page.goto(client.url)
        choose(page, 0)
        press(page, "u")
        expect(page.locator(".notice")).to_contain_text("Decisions cannot be stored")
        page.evaluate(f"localStorage.setItem({undo}, '[[{{}}]]')")  # of when they could
        press(page, "u", "a")
        assert page.evaluate(f"localStorage.getItem({undo})") == "[[{}]]"
        expect(page.locator(".status")).to_contain_text("decisions are off: output: cannot write to")
        expect(page.locator(".notice")).to_contain_text("Decisions cannot be stored")
        page.context.close()
    assert decided(labels) == {}


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
