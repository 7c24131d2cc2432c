"""A real browser for tests of the page."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

CHROMIUM = os.environ.get("OPENVIS_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
NEEDED = "no browser: install Debian's chromium, or set OPENVIS_CHROMIUM to the path of one"

expect.set_options(timeout=60_000)  # other tests run beside these

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason=NEEDED)


@contextmanager
def browser() -> Iterator[Browser]:
    """Starts a browser, which runs while the block does."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield started
        finally:
            started.close()
