"""The demo's machines, for tests that run playbooks, break a layer or publish."""

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

PROJECT = "/opt/screen-flow"
# Runs in the worker's container, which outlives the faults: the api's own client would share the api's fate.
PUBLISHER = Path(__file__).with_name("publisher.py").read_text()


def resolve_localhost(patch: pytest.MonkeyPatch) -> None:
    """Take *.localhost to this machine, as browsers do (RFC 6761); glibc alone does not."""
    resolve = socket.getaddrinfo

    def local(host: Any, *rest: Any, **options: Any) -> Any:
        # asyncio's libraries give it as bytes.
        name = host.decode() if isinstance(host, bytes) else str(host)
        return resolve("127.0.0.1" if name.endswith(".localhost") else host, *rest, **options)

    patch.setattr(socket, "getaddrinfo", local)


def mtu() -> str:
    """Return the MTU of this machine's default route, in bytes."""
    routes = subprocess.run(("ip", "route", "show", "default"), check=True, capture_output=True, text=True)
    words = routes.stdout.split()
    return (Path("/sys/class/net") / words[words.index("dev") + 1] / "mtu").read_text().strip()


class Demo:
    """One demo server, through the engine; ORIGIN_CONTAINER and EMULATOR_API_URL of .demo/env name it."""

    def __init__(self) -> None:
        self.container = os.environ["ORIGIN_CONTAINER"]
        self.control = os.environ["EMULATOR_API_URL"].replace("/client/v4", "/_emulator")

    def run(self, *command: str) -> str:
        """Run a command on the server; return what it printed. Raises AssertionError with its complaint."""
        ran = subprocess.run(
            ("docker", "exec", "--workdir", PROJECT, self.container, *command),
            check=False, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert ran.returncode == 0, f"{' '.join(command)}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def compose(self, *command: str) -> str:
        """Run `docker compose` over the site's project."""
        return self.run("docker", "compose", *command)

    def redis(self, *command: str) -> str:
        """Run `redis-cli` as the guide does; return its answer as JSON."""
        return self.compose("exec", "-T", "redis", "redis-cli", "--json", *command)

    def published(self, user: str) -> list[str]:
        """Return the ids in the user's stream: the truth that a client's list is held to."""
        return [entry[0] for entry in json.loads(self.redis("XRANGE", f"user:{user}:stream", "-", "+"))]

    @contextlib.contextmanager
    def subscribed(self, user: str) -> Iterator[list[str]]:
        """Do the guide's SUBSCRIBE while the block runs; the list holds the messages after it."""
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
            # The end of its input ends it.
            shown, _ = process.communicate(timeout=20)
            # Each message is three lines: its kind, its channel, its text.
            messages += shown.splitlines()[2::3]

    @contextlib.contextmanager
    def publishing(
        self, user: str, events: int = 900, per_second: float = 15
    ) -> Iterator["subprocess.Popen[str]"]:
        """Publish at this pace, through any loss of Redis, while the block runs; at most so many events.

        900 with a few of the site's own stay below the 1,000 of which the stream forgets none.
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
            complaint = process.stdout.read()
            assert process.wait(30) == 0, complaint

    @contextlib.contextmanager
    def worker_resting(self) -> Iterator[None]:
        """Let no CV be processed until half a second after the block, so that its events come later."""
        pattern = "[d]ramatiq app.worker"  # not the shell that holds these words
        self.run("pkill", "--signal", "STOP", "--full", pattern)
        try:
            yield
        finally:
            wake = f"sleep 0.5; pkill --signal CONT --full '{pattern}'"
            subprocess.run(("docker", "exec", "--detach", self.container, "sh", "-c", wake), check=True)

    def cut_edge(self) -> int:
        """Drop every connection that the edge has; return how many."""
        return int(httpx.post(f"{self.control}/edge/cut").raise_for_status().json()["cut"])
