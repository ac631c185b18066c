"""Chromium for tests: start it, sign in, upload three CVs, and record what DevTools show of the sockets."""

import json
import os
import uuid
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Playwright, expect

from tests.kit.documents import pdf, word

ARTEFACTS = Path(__file__).parents[2] / ".artefacts"


GRACE = "Grace Hopper\ngrace@example.com\n+1 212 555 2368\nSkills: Python, Docker"
ALAN = "CV\nAlan Turing\nalan@example.com\n+44 20 7946 0321\nSkills: Python, Linux, Redis"
CVS = [
    {"name": "grace.pdf", "mimeType": "application/pdf", "buffer": pdf(GRACE)},
    {
        "name": "alan.docx",
        "mimeType": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "buffer": word(ALAN),
    },
    {"name": "broken.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7\nthis is not a PDF"},
]


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


def sign_in(page: Page, name: str) -> str:
    """Open the page, sign in as a new user and wait until the socket is live; return the user id."""
    user = f"{name}-{uuid.uuid4().hex[:8]}"
    page.goto(os.environ["SITE_URL"])
    page.get_by_label("Your name").fill(user)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")
    return user


class DevTools:
    """Records what the Network panel shows of a page, from construction on."""

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
        """The ids of all events, in the order of their arrival."""
        return [message["id"] for message in self.messages if "id" in message]

    @property
    def insecure(self) -> list[str]:
        """URLs that an https page may not use, and those that the browser reports as mixed content."""
        return self.mixed + [
            url for url in self.addresses if url.split(":")[0] not in ("https", "wss", "data")
        ]
