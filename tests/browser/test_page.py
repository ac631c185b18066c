"""The page in Debian's Chromium, through the edge: what a person sees. Takes SITE_URL from .demo/env."""

import io
import os
import uuid
from pathlib import Path

import docx
import fpdf
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

ARTEFACTS = Path(__file__).parents[2] / ".artefacts"

if "SITE_URL" not in os.environ:
    pytest.skip("SITE_URL is not set: run scripts/demo, then `set -a; . .demo/env`", allow_module_level=True)


def pdf() -> bytes:
    """Return a CV as a real PDF."""
    document = fpdf.FPDF()
    document.add_page()
    document.set_font("helvetica", size=12)
    for line in ("Grace Hopper", "grace@example.com", "+1 212 555 2368", "Skills: Python, Docker"):
        document.cell(text=line, new_x="LMARGIN", new_y="NEXT")
    return bytes(document.output())


def word() -> bytes:
    """Return a CV as a real Word document."""
    document = docx.Document()
    for line in ("Alan Turing", "alan@example.com", "+44 20 7946 0321", "Skills: Python, Linux, Redis"):
        document.add_paragraph(line)
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


CVS = [
    {"name": "grace.pdf", "mimeType": "application/pdf", "buffer": pdf()},
    {
        "name": "alan.docx",
        "mimeType": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "buffer": word(),
    },
    {"name": "broken.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7\nthis is not a PDF"},
]


@pytest.fixture(scope="module")
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


def sign_in(page: Page, name: str) -> None:
    """Open the page and sign in as somebody new; returns when the socket is live."""
    page.goto(os.environ["SITE_URL"])
    page.get_by_label("Your name").fill(f"{name}-{uuid.uuid4().hex[:8]}")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")


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
