"""The page in Debian's Chromium, through the edge: what a person sees. Takes SITE_URL from .demo/env."""

from playwright.sync_api import Page, expect

from tests.kit.browser import ARTEFACTS, CVS, sign_in


def test_three_cvs_end_right_with_no_reload(page: Page):
    complaints: list[str] = []
    sockets = []
    navigations = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("websocket", lambda socket: sockets.append(socket.url))
    sign_in(page, f"browser-{page.scheme}")
    complaints_before = len(complaints)
    page.on("framenavigated", lambda frame: navigations.append(frame.url))

    page.get_by_test_id("file-input").set_input_files(CVS)
    batch = page.get_by_test_id("batch").first
    expect(batch).to_have_attribute("data-status", "done", timeout=30_000)
    ends = {cv.get_attribute("data-status"): cv.inner_text() for cv in batch.get_by_test_id("cv").all()}
    assert set(ends) == {"done", "failed"}
    for text in ("Grace Hopper", "grace@example.com", "Alan Turing", "alan@example.com", "Docker"):
        expect(batch).to_contain_text(text)
    expect(batch.get_by_test_id("cv-error")).not_to_be_empty()

    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"page-{page.scheme}.png", full_page=True)
    assert navigations == [], "the page was reloaded"
    assert [url.split(":")[0] for url in sockets] == ["wss"]
    assert complaints[complaints_before:] == []


def test_progress_comes_over_the_socket_alone(page: Page):
    sign_in(page, f"socket-{page.scheme}")
    snapshots = []
    page.on(
        "request",
        lambda request: (
            snapshots.append(request.url) if request.method == "GET" and "/batches" in request.url else None
        ),
    )
    page.get_by_test_id("file-input").set_input_files(CVS[:1])
    expect(page.get_by_test_id("batch").first).to_have_attribute("data-status", "done", timeout=30_000)
    assert snapshots == [], "the page polled"


def test_a_file_of_another_kind_is_refused_in_words(page: Page):
    sign_in(page, f"refused-{page.scheme}")
    page.get_by_test_id("file-input").set_input_files(
        [{"name": "photo.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\n" + bytes(100)}]
    )
    expect(page.get_by_test_id("upload")).to_contain_text("photo.png")
    expect(page.get_by_test_id("batch")).to_have_count(0)
