"""Debian's Chromium, opened as a person does."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright


def launch(playwright: Playwright, **options: Any) -> Browser:
    """Start Chromium; as root it needs --no-sandbox."""
    return playwright.chromium.launch(
        executable_path="/usr/bin/chromium",
        args=[
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ],
        **options,
    )


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    browser = launch(playwright)
    yield browser
    browser.close()


@pytest.fixture(params=["light", "dark"])
def page(request, browser: Browser):
    """Open the site as a person does; the test certificate is accepted by hand, so here too."""
    context = browser.new_context(
        ignore_https_errors=True, color_scheme=request.param, viewport={"width": 1000, "height": 900}
    )
    page = context.new_page()
    page.scheme = request.param
    yield page
    context.close()
