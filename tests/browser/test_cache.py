"""The back/forward cache, which Playwright turns off: the page closes its socket and returns up to date."""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Playwright, expect

from tests.kit.browser import launch, sign_in

# Records the page's sockets, and on return their states and whether the page came from the cache.
WATCH = """
window.sockets = [];
window.WebSocket = class extends WebSocket {
  constructor(...rest) { super(...rest); window.sockets.push(this); }
};
window.addEventListener("pageshow", (event) => {
  window.cached = event.persisted;
  window.states = window.sockets.map((socket) => socket.readyState);
});
"""
# In the browser, which resolves *.localhost.
UPLOAD = """async () => {
  const form = new FormData();
  form.append("files", new File(["Grace Hopper\\ngrace@example.com"], "grace.txt", {type: "text/plain"}));
  return (await fetch("/api/v1/cv-processing/batches", {method: "POST", body: form})).status;
}"""
ENDED = (2, 3)  # WebSocket's CLOSING and CLOSED


@pytest.fixture
def cached_page(playwright: Playwright) -> Iterator[Page]:
    """A page of a browser with the cache on."""
    browser = launch(playwright, ignore_default_args=["--disable-back-forward-cache"])
    page = browser.new_context(ignore_https_errors=True).new_page()
    page.add_init_script(WATCH)
    yield page
    browser.close()


def test_a_cached_page_has_no_socket_and_returns_up_to_date(cached_page: Page) -> None:
    page = cached_page
    site = os.environ["SITE_URL"].rstrip("/")
    sign_in(page, "cache")
    page.evaluate("window.marker = 1")
    page.goto(f"{site}/favicon.svg")
    # A batch is processed while the page is cached.
    assert page.evaluate(UPLOAD) == 202
    page.wait_for_timeout(2_000)
    page.evaluate("history.back()")
    expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")
    assert page.evaluate("[window.marker, window.cached]") == [1, True], "it did not come from the cache"
    states = page.evaluate("window.states")
    assert len(states) == 1
    assert states[0] in ENDED, "the socket was kept"
    assert page.evaluate("window.sockets.length") == 2
    expect(page.get_by_test_id("batch").first).to_have_attribute("data-status", "done", timeout=30_000)
