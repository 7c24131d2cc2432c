import secrets
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from pipelines.review.config import ReviewConfig
from pipelines.review.session import Review
from tests.pipelines.review.archives import write_labels, write_videos
from tests.pipelines.review.browser import Open, browser, intercept
from tests.pipelines.review.serving import Client, served


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review") / "videos"
    write_videos(folder)
    return folder


@pytest.fixture
def labels(videos: Path, tmp_path: Path) -> str:
    return write_labels(str(tmp_path / "labels"), str(videos)).storage.root


@pytest.fixture
def review(labels: str) -> Review:
    """A review with all that searching needs."""
    review = Review(ReviewConfig(labels=labels, reviewer="ann"))
    review.warm_up()
    return review


@pytest.fixture
def counted_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids of added tracks are random; here they count from the first one."""
    numbers = count()
    monkeypatch.setattr(secrets, "randbelow", lambda most: next(numbers))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture
def client(review: Review) -> Iterator[Client]:
    with served(review) as client:
        yield client


@pytest.fixture
def visit(chromium: Browser, client: Client) -> Iterator[Open]:
    """Opens the page in a browser profile of its own; no script may fail in it."""
    contexts, problems = [], list[str]()

    def open_page(url: str | None = None, **options: Any) -> Page:
        context = chromium.new_context(viewport={"width": 1280, "height": 800}, **options)
        contexts.append(context)
        intercept(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(url or client.url)
        expect(page.locator(".card .name").first).to_be_visible()
        return page

    yield open_page
    hacked = [page.evaluate("window.hacked") for context in contexts for page in context.pages]
    for context in contexts:
        context.close()
    assert problems == []
    assert set(hacked) <= {None}
