"""The page in Debian's Chromium, through the edge, as users see it. SITE_URL is in .demo/env."""

from playwright.sync_api import Page, expect

from tests.kit.browser import ARTEFACTS, CVS, sign_in


def test_three_cvs_are_processed_without_a_reload(page: Page):
    errors: list[str] = []
    sockets = []
    navigations = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("websocket", lambda socket: sockets.append(socket.url))
    sign_in(page, f"browser-{page.scheme}")
    errors_before = len(errors)
    page.on("framenavigated", lambda frame: navigations.append(frame.url))

    page.get_by_test_id("file-input").set_input_files(CVS)
    batch = page.get_by_test_id("batch").first
    expect(batch).to_have_attribute("data-status", "done", timeout=30_000)
    results = {cv.get_attribute("data-status"): cv.inner_text() for cv in batch.get_by_test_id("cv").all()}
    assert set(results) == {"done", "failed"}
    for text in ("Grace Hopper", "grace@example.com", "Alan Turing", "alan@example.com", "Docker"):
        expect(batch).to_contain_text(text)
    expect(batch.get_by_test_id("cv-error")).not_to_be_empty()

    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"page-{page.scheme}.png", full_page=True)
    assert navigations == [], "the page was reloaded"
    assert [url.split(":")[0] for url in sockets] == ["wss"]
    assert errors[errors_before:] == []


def test_progress_arrives_over_the_socket_only(page: Page):
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


def test_a_file_of_an_unknown_type_is_refused_with_its_name(page: Page):
    sign_in(page, f"refused-{page.scheme}")
    page.get_by_test_id("file-input").set_input_files(
        [{"name": "photo.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\n" + bytes(100)}]
    )
    expect(page.get_by_test_id("upload")).to_contain_text("photo.png")
    expect(page.get_by_test_id("batch")).to_have_count(0)
