"""An object is shown, followed and kept in a real browser."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from pipelines.archive.additions import FIRST_ID, Additions
from pipelines.archive.reviews import Reviews
from pipelines.archive.tables import Results
from pipelines.review.config import ReviewConfig
from pipelines.review.session import Review
from tests.pipelines.following.videos import HEIGHT, WIDTH, Scene
from tests.pipelines.review.browser import choose, intercept, needs_browser, press, taken
from tests.pipelines.review.following import write_labelled
from tests.pipelines.review.serving import served

pytestmark = [needs_browser, pytest.mark.usefixtures("counted_ids")]

Shown = tuple[Page, Results, Scene]


@pytest.fixture
def shown(chromium: Browser, tmp_path: Path) -> Iterator[Shown]:
    """The only track of the archive in the player, at frame 12."""
    results, scene = write_labelled(tmp_path)
    review = Review(ReviewConfig(labels=results.storage.root, reviewer="ann"))
    problems = list[str]()
    with served(review) as client:
        context = chromium.new_context(viewport={"width": 1280, "height": 800})
        intercept(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(client.url)
        expect(page.locator(".card .name")).to_have_count(1)
        choose(page, 0)
        press(page, "Enter")
        expect(page.locator(".masks")).to_have_attribute("data-frame", "0")
        for frame in ("4", "8", "12"):
            press(page, ".")
            expect(page.locator(".masks")).to_have_attribute("data-frame", frame)
        yield page, results, scene
        context.close()
    assert problems == []


def on_screen(page: Page) -> Callable[[float, float], tuple[float, float]]:
    """Turns pixels of the video into pixels of the screen."""
    expect(page.locator(".marker")).to_be_visible()
    box = page.locator(".marker").bounding_box()
    assert box is not None
    scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
    left, top = box["x"] + (box["width"] - scale * WIDTH) / 2, box["y"] + (box["height"] - scale * HEIGHT) / 2
    return lambda x, y: (left + scale * x, top + scale * y)


def show(page: Page, scene: Scene, name: str) -> None:
    """Draws a box around the star."""
    place, (left, top, width, height) = on_screen(page), scene.box(12)
    page.mouse.move(*place(left, top))
    page.mouse.down()
    page.mouse.move(*place(left + width / 2, top + height))
    page.mouse.move(*place(left + width, top + height))
    page.mouse.up()
    page.get_by_label("Name of the object").fill(name)
    press(page, "Enter")


def test_an_object_is_drawn_followed_kept_and_searched(shown: Shown) -> None:
    page, results, scene = shown
    page.get_by_role("button", name="Follow an object").click()
    expect(page.locator(".follow")).to_contain_text("Draw a box around the object")
    show(page, scene, "my star")
    expect(page.locator(".follow")).to_contain_text("Found in 6 frames")
    expect(page.locator(".what")).to_contain_text("followed: my star")
    expect(page.locator(".piece[aria-selected=true] .label")).to_have_text("followed my star")
    expect(page.locator(".masks")).to_have_attribute("data-frame", "12")
    press(page, "a")
    expect(page.locator(".notice")).to_contain_text("Keep the track, or discard it, first")
    assert Additions(results.storage).tracks().num_rows == 0
    page.get_by_role("button", name="Keep, and find more like this").click()
    expect(page.locator(".what")).to_contain_text(f"track {FIRST_ID}: my star")
    expect(page.locator(".chip")).to_contain_text(f"similar to track {FIRST_ID}")
    expect(page.locator(".card")).to_have_count(2)
    expect(page.locator(".card").first).to_contain_text("accepted")
    (row,) = Reviews(results.storage).read().to_pylist()
    assert (row["track_id"], row["action"], row["category"]) == (FIRST_ID, "accept", "my star")
    press(page, "r")
    expect(page.locator(".card").first).to_contain_text("rejected")


def click(page: Page, scene: Scene) -> None:
    """Shows the star by a click."""
    press(page, "f")
    left, top, width, height = scene.box(12)
    page.mouse.click(*on_screen(page)(left + width / 2, top + height / 2))


def test_a_click_shows_an_object_and_the_track_is_discarded(shown: Shown) -> None:
    page, results, scene = shown
    click(page, scene)
    page.get_by_label("Name of the object").fill("my star")
    page.get_by_role("button", name="Follow", exact=True).click()
    expect(page.locator(".follow")).to_contain_text("Found in 6 frames")
    press(page, "f")  # what was found is kept or discarded first
    page.get_by_role("button", name="Discard").click()
    expect(page.locator(".follow")).to_have_count(0)
    expect(page.locator(".what")).to_contain_text("track 1: blue dotted moon")
    expect(page.locator(".masks")).to_have_attribute("data-frame", "12")
    expect(page.locator(".card")).to_have_count(1)
    click(page, scene)
    expect(page.get_by_label("Name of the object")).to_be_visible()
    page.keyboard.type("star")  # letters are no decisions
    expect(page.get_by_label("Name of the object")).to_have_value("star")
    press(page, "Escape")
    expect(page.locator(".follow")).to_have_count(0)
    expect(page.locator(".player")).to_be_visible()
    assert Additions(results.storage).tracks().num_rows == 0
    press(page, "f")
    page.mouse.click(*on_screen(page)(2, 2))
    page.get_by_label("Name of the object").fill("nothing")
    press(page, "Enter")
    expect(page.get_by_role("alert")).to_contain_text("no proposal fits: of 2 in the frame, none covers its points")
    press(page, "f")
    press(page, "Escape")
    expect(page.locator(".follow")).to_have_count(0)
    expect(page.locator(".player header")).to_be_visible()


def test_the_player_stays_where_it_was_moved_while_an_object_was_followed(shown: Shown) -> None:
    page, _, scene = shown
    page.route("**/api/followed*", lambda route: route.abort())
    page.get_by_role("button", name="Follow an object").click()
    show(page, scene, "my star")
    expect(page.locator(".follow")).to_contain_text("trying again")
    press(page, ",")
    expect(page.locator(".masks")).to_have_attribute("data-frame", "8")
    page.unroute("**/api/followed*")
    expect(page.locator(".follow")).to_contain_text("Found in 6 frames")
    expect(page.locator(".what")).to_contain_text("followed: my star")
    expect(page.locator(".masks")).to_have_attribute("data-frame", "8")


def test_an_answer_after_cancelling_changes_nothing(shown: Shown) -> None:
    """Whether it says that following has begun, or how far it is."""
    page, _, scene = shown
    held = list[Route]()
    for path in (re.compile(r"/api/follow\?"), re.compile(r"/api/followed\?")):
        click(page, scene)
        page.get_by_label("Name of the object").fill("my star")
        page.route(path, lambda route: held.append(route))
        press(page, "Enter")
        first = taken(page, held)
        with page.expect_response("**/api/unfollow*") as unfollowed:
            page.get_by_role("button", name="Cancel").click()
            first.continue_()
            while held:
                held.pop().continue_()
        assert unfollowed.value.ok
        page.unroute(path)
        page.wait_for_timeout(100)
        expect(page.locator(".follow")).to_have_count(0)


def test_a_server_that_is_away_loses_nothing(shown: Shown) -> None:
    page, results, scene = shown
    away = re.compile(r"/api/(follow|followed|keep)\?")
    page.route(away, lambda route: route.abort())
    click(page, scene)
    page.get_by_label("Name of the object").fill("my star")
    press(page, "Enter")
    expect(page.get_by_role("alert")).to_contain_text("Failed to fetch")
    page.unroute(away)
    page.route("**/api/followed*", lambda route: route.abort())
    press(page, "Enter")
    expect(page.get_by_role("status").filter(has_text="Following")).to_contain_text("trying again: Failed to fetch")
    page.unroute("**/api/followed*")
    expect(page.locator(".follow")).to_contain_text("Found in 6 frames")
    page.route("**/api/keep*", lambda route: (route.fetch(), route.abort()))
    page.get_by_role("button", name="Keep", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Failed to fetch")
    page.unroute("**/api/keep*")
    page.get_by_role("button", name="Keep", exact=True).click()
    expect(page.locator(".what")).to_contain_text(f"track {FIRST_ID}: my star")
    assert Additions(results.storage).tracks().num_rows == 1
