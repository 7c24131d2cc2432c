"""An object is shown, followed and kept in a real browser."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from pipelines.archive.additions import FIRST_ID, Additions
from pipelines.archive.reviews import Reviews
from pipelines.archive.tables import Results
from pipelines.review.config import ReviewConfig
from pipelines.review.session import Review
from tests.pipelines.following.videos import HEIGHT, WIDTH, Scene
from tests.pipelines.review.browser import choose, needs_browser, press
from tests.pipelines.review.following import write_labelled
from tests.pipelines.review.serving import served

pytestmark = needs_browser

Shown = tuple[Page, Results, Scene]


@pytest.fixture
def shown(chromium: Browser, tmp_path: Path) -> Iterator[Shown]:
    """The only track of the archive in the player, at frame 12."""
    results, scene = write_labelled(tmp_path)
    review = Review(ReviewConfig(labels=results.storage.root, reviewer="ann"))
    problems = list[str]()
    with served(review) as client:
        context = chromium.new_context(viewport={"width": 1280, "height": 800})
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(client.url)
        expect(page.locator(".card")).to_have_count(1)
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


def test_a_click_shows_an_object_and_the_track_is_discarded(shown: Shown) -> None:
    page, results, scene = shown
    press(page, "f")
    left, top, width, height = scene.box(12)
    page.mouse.click(*on_screen(page)(left + width / 2, top + height / 2))
    page.get_by_label("Name of the object").fill("my star")
    page.get_by_role("button", name="Follow", exact=True).click()
    page.get_by_role("button", name="Discard").click()
    expect(page.locator(".follow")).to_have_count(0)
    expect(page.locator(".card")).to_have_count(1)
    assert Additions(results.storage).tracks().num_rows == 0
    press(page, "f")
    page.mouse.click(*on_screen(page)(2, 2))
    page.get_by_label("Name of the object").fill("nothing")
    press(page, "Enter")
    expect(page.get_by_role("alert")).to_contain_text("no proposal fits: of 2 in the frame, none covers its points")
