"""What the browser's tests share: three CVs, signing in, and what DevTools see of the page's sockets."""

import io
import json
import os
import uuid
from pathlib import Path
from typing import Any

import docx
import fpdf
from playwright.sync_api import Page, expect

ARTEFACTS = Path(__file__).parents[2] / ".artefacts"


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


def sign_in(page: Page, name: str) -> str:
    """Open the page and sign in as somebody new; return who, when the socket is live."""
    user = f"{name}-{uuid.uuid4().hex[:8]}"
    page.goto(os.environ["SITE_URL"])
    page.get_by_label("Your name").fill(user)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")
    return user


class DevTools:
    """What the Network panel shows of a page, from now on."""

    def __init__(self, page: Page) -> None:
        self.handshakes: list[int] = []  # statuses of the WebSockets' handshakes
        self.messages: list[dict[str, Any]] = []  # received, in order, over all sockets
        self.addresses: list[str] = []
        self.mixed: list[str] = []
        panel = page.context.new_cdp_session(page)
        panel.on("Network.webSocketCreated", lambda event: self.addresses.append(event["url"]))
        panel.on(
            "Network.webSocketHandshakeResponseReceived",
            lambda event: self.handshakes.append(event["response"]["status"]),
        )
        panel.on(
            "Network.webSocketFrameReceived",
            lambda event: self._received(event["response"]["opcode"], event["response"]["payloadData"]),
        )
        panel.on("Network.requestWillBeSent", lambda event: self._requested(event["request"]))
        panel.send("Network.enable")

    def _received(self, opcode: int, payload: str) -> None:
        if opcode == 1:
            self.messages.append(json.loads(payload))

    def _requested(self, request: dict[str, Any]) -> None:
        self.addresses.append(request["url"])
        if request.get("mixedContentType", "none") != "none":
            self.mixed.append(request["url"])

    @property
    def ids(self) -> list[str]:
        """The ids of all events, in the order in which they came."""
        return [message["id"] for message in self.messages if "id" in message]

    @property
    def insecure(self) -> list[str]:
        """Addresses that an https page may not use, and what the browser itself calls mixed content."""
        return self.mixed + [
            url for url in self.addresses if url.split(":")[0] not in ("https", "wss", "data")
        ]
