"""Debian's Chromium, opened as a person does."""

import os

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.demo import Demo


def pytest_collection_modifyitems(items):
    """Skip what needs a site where there is none."""
    if "SITE_URL" not in os.environ:
        for item in items:
            item.add_marker(
                pytest.mark.skip("SITE_URL is not set: run scripts/demo, then `set -a; . .demo/env`")
            )


@pytest.fixture(scope="session")
def demo() -> Demo:
    return Demo()


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
