"""Where the site is and who is signed in; test_contract.py says how to give it."""

import os
import secrets
import ssl
import time
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

COOKIE = "__Host-screen-flow"
CV = b"Ada Lovelace\nada@example.com\n+44 20 7946 0018\nSkills: Python, Redis, nginx\n"


@dataclass(frozen=True)
class Site:
    """A site from outside, and one person's session on it."""

    url: str
    tls: ssl.SSLContext
    user: str
    session: str

    def http(self, session: str | None = None, **headers: str) -> httpx.Client:
        """Return a client with the person's session, or with another one; "" is none."""
        session = self.session if session is None else session
        cookie = {"Cookie": f"{COOKIE}={session}"} if session else {}
        # As a browser does, so that the site takes its requests for those of its own page.
        return httpx.Client(
            base_url=self.url, verify=self.tls, timeout=60, headers={"Origin": self.url} | cookie | headers
        )

    def socket(
        self, last: str | None = None, *, user: str | None = None, session: str | None = None,
        origin: str | None = None, **more: Any,
    ) -> connect:  # fmt: skip
        """Return a WebSocket of the person's, as their browser would open it."""
        session = self.session if session is None else session
        return connect(
            self.url.replace("http", "ws", 1)
            + f"/api/v1/cv-processing/ws/{user or self.user}"
            + ("" if last is None else f"?last_event_id={last}"),
            ssl=self.tls if self.url.startswith("https:") else None,
            origin=origin or self.url,  # type: ignore[arg-type]
            additional_headers={"Cookie": f"{COOKIE}={session}"} if session else {},
            proxy=None,
            open_timeout=30,
            **more,
        )

    def upload(self, *names: str) -> dict[str, Any]:
        """Upload small CVs by these names; return the batch."""
        with self.http() as http:
            answer = http.post(
                "/api/v1/cv-processing/batches", files=[("files", (name, CV, "text/plain")) for name in names]
            )
        assert answer.status_code == 202, f"{answer.status_code} {answer.headers}\n{answer.text}"
        return dict(answer.json())

    def snapshot(self) -> dict[str, Any]:
        """Return the person's batches and the id of the last event in them."""
        with self.http() as http:
            return dict(http.get("/api/v1/cv-processing/batches").raise_for_status().json())

    def settle(self) -> None:
        """Wait until no batch of an earlier test is processed any more: then no event comes by itself."""
        end = time.monotonic() + 60
        while any(batch["status"] != "done" for batch in self.snapshot()["batches"]):
            assert time.monotonic() < end, "a batch was not finished within 60 s"
            time.sleep(0.1)


@pytest.fixture(scope="session")
def _target(localhost_names: None) -> tuple[str, ssl.SSLContext]:
    if "SITE_URL" not in os.environ:
        pytest.skip("SITE_URL is not set: the site to test, as in https://screen-flow.example.com")
    return os.environ["SITE_URL"].rstrip("/"), ssl.create_default_context(cafile=os.getenv("EDGE_CA_FILE"))


@pytest.fixture(scope="session")
def site(_target: tuple[str, ssl.SSLContext]) -> Site:
    """The site with the session given, or with a new one where it has the demo's sign-in."""
    url, tls = _target
    session = os.getenv("SITE_SESSION", "")
    with httpx.Client(base_url=url, verify=tls, headers={"Origin": url}) as http:
        if not session:
            answer = http.post("/api/v1/session", json={"user_id": f"acceptance-{secrets.token_hex(4)}"})
            if answer.status_code != 204:
                pytest.fail(
                    f"SITE_SESSION is not set and {url} has no demo sign-in ({answer.status_code} "
                    f"{answer.text[:200]}): set it to the value of a signed-in person's cookie {COOKIE}."
                )
            session = answer.cookies[COOKIE]
        answer = http.get("/api/v1/session", headers={"Cookie": f"{COOKIE}={session}"})
    if answer.status_code != 200:
        pytest.fail(f"SITE_SESSION is no session on {url}: {answer.status_code} {answer.text[:200]}")
    return Site(url, tls, answer.json()["user_id"], session)
