"""A running site: as a user's browser reaches it, and through the engine of the demo's server."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.kit.control import EmulatorControl
from tests.kit.process import remote_script, wait_until

COOKIE = "__Host-screen-flow"
BATCHES = "/api/v1/cv-processing/batches"
CV = b"Ada Lovelace\nada@example.com\n+44 20 7946 0018\nSkills: Python, Redis, nginx\n"
# The folder of the site's compose project, on its server.
PROJECT = "/opt/screen-flow"
# Runs in the worker's container, which outlives the faults: the api's own client would share the api's fate.
PUBLISHER = remote_script("publisher")


def resolve_localhost(patch: pytest.MonkeyPatch) -> None:
    """Resolve *.localhost to 127.0.0.1, as browsers do (RFC 6761) and glibc does not."""
    resolve = socket.getaddrinfo

    def local(host: Any, *rest: Any, **options: Any) -> Any:
        # asyncio passes it as bytes.
        name = host.decode() if isinstance(host, bytes) else str(host)
        return resolve("127.0.0.1" if name.endswith(".localhost") else host, *rest, **options)

    patch.setattr(socket, "getaddrinfo", local)


def mtu() -> str:
    """Return the MTU of this machine's default route, in bytes."""
    routes = subprocess.run(("ip", "route", "show", "default"), check=True, capture_output=True, text=True)
    words = routes.stdout.split()
    return (Path("/sys/class/net") / words[words.index("dev") + 1] / "mtu").read_text().strip()


@dataclass(frozen=True)
class SiteClient:
    """One user's session on a site, used from outside."""

    url: str
    tls: ssl.SSLContext
    user: str
    session: str

    @classmethod
    def sign_in(cls, url: str, tls: ssl.SSLContext, user: str) -> SiteClient:
        """Return a new session by the demo's sign-in. Raises httpx.HTTPStatusError where there is none."""
        with httpx.Client(base_url=url, verify=tls, headers={"Origin": url}, timeout=60) as http:
            response = http.post("/api/v1/session", json={"user_id": user}).raise_for_status()
        return cls(url, tls, user, response.cookies[COOKIE])

    @property
    def cookie(self) -> str:
        return f"{COOKIE}={self.session}"

    def http(self, session: str | None = None, **headers: str) -> httpx.Client:
        """Return a client with the user's session, or with another one; "" means none."""
        session = self.session if session is None else session
        cookie = {"Cookie": f"{COOKIE}={session}"} if session else {}
        # With a browser's Origin header, by which the site recognizes requests of its own page.
        return httpx.Client(
            base_url=self.url, verify=self.tls, timeout=60, headers={"Origin": self.url} | cookie | headers
        )

    def socket(
        self, last: str | None = None, *, user: str | None = None, session: str | None = None,
        origin: str | None = None, **options: Any,
    ) -> connect:  # fmt: skip
        """Return a WebSocket of the user's, as the page would open it after the event `last`."""
        session = self.session if session is None else session
        return connect(
            self.url.replace("http", "ws", 1)
            + f"/api/v1/cv-processing/ws/{user or self.user}"
            + ("" if last is None else f"?last_event_id={last}"),
            ssl=self.tls if self.url.startswith("https:") else None,
            origin=origin or self.url,  # type: ignore[arg-type]
            additional_headers={"Cookie": f"{COOKIE}={session}"} if session else {},
            proxy=None,
            **{"open_timeout": 30} | options,
        )

    def upload(self, *names: str) -> dict[str, Any]:
        """Upload small CVs under these names as one batch; return the batch."""
        with self.http() as http:
            response = http.post(BATCHES, files=[("files", (name, CV, "text/plain")) for name in names])
        assert response.status_code == 202, f"{response.status_code} {response.headers}\n{response.text}"
        return dict(response.json())

    def snapshot(self) -> dict[str, Any]:
        """Return the user's batches and the id of the last event in them."""
        with self.http() as http:
            return dict(http.get(BATCHES).raise_for_status().json())

    def wait_until_idle(self) -> None:
        """Wait until no batch of an earlier test is being processed: no more events are to come."""
        wait_until(
            "every batch is done",
            lambda: all(batch["status"] == "done" for batch in self.snapshot()["batches"]),
            60,
            interval=0.1,
        )


class Demo:
    """The demo's server, named by ORIGIN_CONTAINER and EMULATOR_API_URL of .demo/env."""

    def __init__(self) -> None:
        self.container = os.environ["ORIGIN_CONTAINER"]
        self.control = EmulatorControl(os.environ["EMULATOR_API_URL"].removesuffix("/client/v4"))

    def run(self, *command: str) -> str:
        """Run a command on the server and return its output. Raises AssertionError with its errors."""
        ran = subprocess.run(
            ("docker", "exec", "--workdir", PROJECT, self.container, *command),
            check=False, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert ran.returncode == 0, f"{' '.join(command)}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def shell(self, command: str) -> str:
        """Run a shell command on the server, in the project's folder; return its output."""
        return self.run("sh", "-c", command)

    def compose(self, *command: str) -> str:
        """Run `docker compose` on the site's project."""
        return self.run("docker", "compose", *command)

    def redis(self, *command: str) -> str:
        """Run `redis-cli` as the guide does; return its JSON output."""
        return self.compose("exec", "-T", "redis", "redis-cli", "--json", *command)

    def published(self, user: str) -> list[str]:
        """Return the ids in the user's stream, which is what every client must have received."""
        return [entry[0] for entry in json.loads(self.redis("XRANGE", f"user:{user}:stream", "-", "+"))]

    @contextlib.contextmanager
    def subscribed(self, user: str) -> Iterator[list[str]]:
        """Run the guide's SUBSCRIBE during the block; the list is filled when the block ends."""
        process = subprocess.Popen(
            ("docker", "exec", "--interactive", "--workdir", PROJECT, self.container,
             "docker", "compose", "exec", "-T", "redis",
             "sh", "-c", 'redis-cli SUBSCRIBE "$0" & cat >/dev/null; kill $!', f"user:{user}:events"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout
        messages: list[str] = []
        try:
            confirmation = [process.stdout.readline() for _ in range(3)]
            assert confirmation[0] == "subscribe\n", confirmation
            yield messages
        finally:
            # It exits when its input is closed.
            shown, _ = process.communicate(timeout=20)
            # A message is three lines: type, channel, payload.
            messages += shown.splitlines()[2::3]

    @contextlib.contextmanager
    def publishing(
        self, user: str, events: int = 900, per_second: float = 15
    ) -> Iterator[subprocess.Popen[str]]:
        """Publish at most `events` events during the block, whatever happens to Redis in the meantime.

        The stream keeps the latest 1,000: with a few of the site's own, 900 are all still there.
        """
        process = subprocess.Popen(
            ("docker", "exec", "--interactive", "--workdir", PROJECT, self.container,
             "docker", "compose", "exec", "-T", "worker", "python", "-c", PUBLISHER,
             user, str(events), str(per_second)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert process.stdout
        assert process.stdin
        try:
            first = process.stdout.readline()
            assert first == "publishing\n", first + process.stdout.read()
            yield process
        finally:
            process.stdin.close()
            errors = process.stdout.read()
            assert process.wait(30) == 0, errors

    @contextlib.contextmanager
    def worker_paused(self) -> Iterator[None]:
        """Stop the worker until half a second after the block, so that the events of its CVs come later."""
        pattern = "[d]ramatiq app.worker"  # brackets: not the shell whose command line has these words
        self.run("pkill", "--signal", "STOP", "--full", pattern)
        try:
            yield
        finally:
            resume = f"sleep 0.5; pkill --signal CONT --full '{pattern}'"
            subprocess.run(("docker", "exec", "--detach", self.container, "sh", "-c", resume), check=True)

    def cut_edge(self) -> int:
        """Close every connection that the edge has; return how many there were."""
        return int(self.control("POST", "edge/cut")["cut"])
