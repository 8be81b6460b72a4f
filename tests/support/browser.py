"""Headless Chromium driven by Playwright; tests that need it are skipped without it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = next((path for name in NAMES if (path := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(PROGRAM is None, reason=f"no browser on this machine: {', '.join(NAMES)}")


@contextmanager
def open_page(*, width: int = 1400, height: int = 1000, dark: bool = False) -> Iterator[Page]:
    """Open an empty page, which waits up to half a minute for each action."""
    assert PROGRAM is not None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
        page.set_default_timeout(30_000)
        try:
            yield page
        finally:
            browser.close()
