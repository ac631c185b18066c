"""Debian's Chromium, with one page per test."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from tests.kit.browser import launch


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
    """A page in either colour scheme, which accepts the test certificate as a user would by hand."""
    context = browser.new_context(
        ignore_https_errors=True, color_scheme=request.param, viewport={"width": 1000, "height": 900}
    )
    page = context.new_page()
    page.scheme = request.param
    yield page
    context.close()
