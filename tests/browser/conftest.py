"""Debian's Chromium, opened as a person does."""

import pytest
from playwright.sync_api import Browser, sync_playwright


@pytest.fixture(scope="session")
def browser():
    """Start Chromium; as root it needs --no-sandbox."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
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
        )
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
