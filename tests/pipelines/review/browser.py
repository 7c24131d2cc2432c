"""A real browser for tests of the page."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

CHROMIUM = os.environ.get("OPENVIS_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
NEEDED = "no browser: install Debian's chromium, or set OPENVIS_CHROMIUM to the path of one"

expect.set_options(timeout=60_000)  # other tests run beside these

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason=NEEDED)

Open = Callable[..., Page]
"""Opens the page in a browser profile of its own."""

ON_SCREEN = """() => {
    const video = document.querySelector(".stage video");
    const canvas = Object.assign(document.createElement("canvas"), { width: 128, height: 96 });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(video, 0, 0, 128, 96);
    const bright = (x, y) => context.getImageData(x, y, 1, 1).data[0] > 128;
    let number = 0;
    for (let bit = 0; bit < 8; bit++) if (bright(16 + 32 * (bit % 4), bit < 4 ? 24 : 72)) number |= 1 << bit;
    const masks = document.querySelector(".masks");
    return [number, masks.dataset.frame === "" ? null : Number(masks.dataset.frame)];
}"""
"""The number that the frame on the screen shows, and the frame whose masks are drawn over it."""


@contextmanager
def browser() -> Iterator[Browser]:
    """Starts a browser, which runs while the block does."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield started
        finally:
            started.close()


def intercept(context: BrowserContext) -> None:
    """Has requests pass through Playwright from the start; after a first `route` of an open page, some still do not."""
    context.route("**/never-asked-for", lambda route: route.abort())


def taken(page: Page, held: list[Route]) -> Route:
    """Waits for a request that a route of the page holds back."""
    wait_for(page, lambda: bool(held), "nothing was asked for")
    return held.pop()


def wait_for(page: Page, condition: Callable[[], bool], failure: str) -> None:
    """Waits, while events of the page arrive; fails after a minute, saying so."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, failure
        page.wait_for_timeout(50)


def play(page: Page, frames: int) -> dict[int, set[int | None]]:
    """Plays slowly from where the video is; returns the first frames, and of which ones masks were over each."""
    page.evaluate("document.querySelector('.stage video').playbackRate = 0.1")
    page.keyboard.press(" ")
    seen: dict[int, set[int | None]] = {}
    for _ in range(1000):
        page.wait_for_timeout(40)
        shown, masks = page.evaluate(ON_SCREEN)
        if len(seen) == frames and shown not in seen:
            return seen
        seen.setdefault(shown, set()).add(masks)
    raise AssertionError(f"it does not play: {seen}")


def names(page: Page) -> list[str]:
    return page.locator(".card .name").all_inner_texts()


def choose(page: Page, index: int) -> None:
    expect(page.locator(f"#card-{index} .name")).to_be_visible()  # before, the card is empty, and keys do nothing
    page.locator(f"#card-{index}").click()
    expect(page.locator(f"#card-{index}")).to_have_attribute("aria-selected", "true")


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def rename(page: Page, name: str) -> None:
    """Gives the chosen track a name."""
    press(page, "n")
    page.get_by_role("dialog").get_by_label("Category").fill(name)
    press(page, "Enter")
