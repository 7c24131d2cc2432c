"""Decisions on the page, in a real browser."""

from typing import Any

import pytest
from playwright.sync_api import Browser, Route, expect

from pipelines.archive.reviews import Reviews
from pipelines.review.config import ReviewConfig
from pipelines.review.session import Review
from pipelines.storage.files import Storage
from tests.pipelines.review.archives import EVIL_CATEGORY, EVIL_NAME, decided
from tests.pipelines.review.browser import Open, choose, needs_browser, press, rename, taken
from tests.pipelines.review.serving import served
from tests.waiting import wait_until

pytestmark = needs_browser


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
