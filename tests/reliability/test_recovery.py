"""Faults under two hundred live sockets: what people see, that nothing is lost, and how the site comes back.

Over a running site, named by SITE_URL, EDGE_CA_FILE and ORIGIN_CONTAINER (.demo/env). Each fault is done to
the server itself while people upload CVs. Afterwards every socket must hold every event of its user, once and
in order, and every accepted CV must be finished, once. Prints the table of docs/reliability.md.
"""

import asyncio
import contextlib
import json
import os
import secrets
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import websockets

from tests.kit.documents import slow_pdf
from tests.kit.site import PROJECT, Demo

if "SITE_URL" not in os.environ:
    pytest.skip("needs a running site: set -a; . .demo/env", allow_module_level=True)

pytestmark = pytest.mark.usefixtures("localhost_names")
URL = os.environ["SITE_URL"]
CA = os.environ["EDGE_CA_FILE"]
DEMO = Demo()
USERS, SOCKETS_EACH = 20, 10
CV = b"Ada Lovelace\nada@example.com\nSkills: Python, Redis\n"
RECOVERY = 90.0  # seconds after the fault's end that the site may take

ROWS: list[str] = []


def on_server(command: str) -> str:
    """Run a shell's command in the project's folder on the server; return what it printed."""
    return DEMO.run("sh", "-c", command)


def http_client() -> httpx.AsyncClient:
    context = ssl.create_default_context(cafile=CA)
    return httpx.AsyncClient(base_url=URL, verify=context, headers={"Origin": URL}, timeout=20)


@dataclass
class Person:
    """Somebody with a session, some sockets, and CVs on the way."""

    name: str
    cookie: str = ""
    accepted: list[str] = field(default_factory=list)
    uploads: Counter[int | str] = field(default_factory=Counter)


@dataclass
class Socket:
    """A client that keeps its socket as the page does: it connects again and resumes."""

    person: Person
    last: str
    events: list[str] = field(default_factory=list)
    resyncs: int = 0
    cuts: Counter[int | str] = field(default_factory=Counter)
    live: bool = False
    down_since: float | None = None
    longest: float = 0.0

    async def run(self, context: ssl.SSLContext) -> None:
        port = urlsplit(URL).port or 443
        while True:
            try:
                async with websockets.connect(
                    f"{URL.replace('https', 'wss')}/api/v1/cv-processing/ws/{self.person.name}"
                    f"?last_event_id={self.last}",
                    host="127.0.0.1",
                    port=port,
                    ssl=context,
                    origin=websockets.Origin(URL),
                    additional_headers={"Cookie": self.person.cookie},
                    open_timeout=10,
                    compression=None,
                    proxy=None,
                ) as socket:
                    await socket.send("ping")
                    async for message in socket:
                        self._receive(json.loads(message))
                self.cuts[socket.close_code or 1006] += 1
            except websockets.InvalidStatus as error:
                self.cuts[f"HTTP {error.response.status_code}"] += 1
            except (OSError, websockets.WebSocketException, TimeoutError) as error:
                self.cuts[type(error).__name__] += 1
            self.live = False
            self.down_since = self.down_since or time.monotonic()
            await asyncio.sleep(0.5 + secrets.randbelow(1000) / 1000)

    def _receive(self, message: dict[str, Any]) -> None:
        if message["type"] == "pong":
            self.live = True
            if self.down_since is not None:
                self.longest = max(self.longest, time.monotonic() - self.down_since)
                self.down_since = None
        elif message["type"] == "resync":
            self.resyncs += 1
            self.last = message["snapshot"]["last_event_id"]
        elif "id" in message:
            self.events.append(message["id"])
            self.last = message["id"]


class Crowd:
    """Twenty people with ten sockets each, who upload a CV each half second."""

    def __init__(self) -> None:
        self.people = [Person(f"fault-{secrets.token_hex(4)}") for _ in range(USERS)]
        self.sockets: list[Socket] = []
        self._tasks: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def gathered(self) -> AsyncIterator["Crowd"]:
        context = ssl.create_default_context(cafile=CA)
        async with http_client() as client:
            for person in self.people:
                client.cookies.clear()
                answer = await client.post("/api/v1/session", json={"user_id": person.name})
                answer.raise_for_status()
                person.cookie = answer.headers["set-cookie"].partition(";")[0]
            client.cookies.clear()
            self.sockets = [Socket(person, "0-0") for person in self.people for _ in range(SOCKETS_EACH)]
            self._tasks = [asyncio.create_task(socket.run(context)) for socket in self.sockets]
            await self.until("all sockets are live", self.all_live, 60)
            self._tasks.append(asyncio.create_task(self._upload(client)))
            try:
                yield self
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def all_live(self) -> bool:
        return all(socket.live for socket in self.sockets)

    async def until(self, what: str, probe: Callable[[], bool], seconds: float) -> float:
        """Return the seconds until `probe` is true."""
        begun = time.monotonic()
        while not await asyncio.to_thread(probe):
            if time.monotonic() - begun > seconds:
                cuts = sum((socket.cuts for socket in self.sockets), Counter())
                raise AssertionError(f"after {seconds} s not yet: {what}; closed by {dict(cuts)}")
            await asyncio.sleep(0.1)
        return time.monotonic() - begun

    async def _upload(self, client: httpx.AsyncClient) -> None:
        number = 0
        while True:
            person = self.people[number % USERS]
            number += 1
            await self.upload(client, person, CV)
            await asyncio.sleep(0.5)

    async def upload(self, client: httpx.AsyncClient, person: Person, data: bytes) -> None:
        try:
            answer = await client.post(
                "/api/v1/cv-processing/batches",
                files={"files": ("cv", data)},
                headers={"Cookie": person.cookie},
            )
        except httpx.TransportError as error:
            person.uploads[type(error).__name__] += 1
            return
        person.uploads[answer.status_code] += 1
        if answer.status_code == 202:
            person.accepted.append(answer.json()["batch_id"])

    async def settle(self) -> None:
        """Stop the uploads, wait for every accepted CV, and compare each socket with the truth."""
        self._tasks.pop().cancel()

        def all_done() -> bool:
            batches = [batch for person in self.people for batch in person.accepted]
            script = "\n".join(f"HMGET batch:{batch} total done failed" for batch in batches)
            answer = on_server(f"docker compose exec -T redis redis-cli <<'END'\n{script}\nEND")
            return answer.split() == ["1", "1", "0"] * len(batches)

        await self.until("every accepted CV is done, once", all_done, RECOVERY)
        for person in self.people:
            order = DEMO.published(person.name)
            for socket in (s for s in self.sockets if s.person is person):
                if order:
                    await self.until("the last event is there", lambda s=socket, o=order: s.last == o[-1], 10)
                assert not socket.resyncs
                assert socket.events == order


Fault = Callable[[Crowd], Awaitable[None]]


async def measure(name: str, fault: Fault, remedy: str, *, live: bool = True) -> Crowd:
    """Do a fault to the site with a crowd on it; add the row of what was seen."""
    async with Crowd().gathered() as crowd:
        await asyncio.sleep(3)
        await fault(crowd)
        back = await crowd.until("all sockets are live again", crowd.all_live, RECOVERY) if live else 0.0
        await asyncio.sleep(3)
        await crowd.settle()
        cuts = sum((socket.cuts for socket in crowd.sockets), Counter())
        uploads = sum((person.uploads for person in crowd.people), Counter())
        cut = sum(1 for socket in crowd.sockets if socket.cuts)
        gap = max(socket.longest for socket in crowd.sockets)
        refused = {status: n for status, n in uploads.items() if status != 202}
        accepted = uploads[202]
    seen = f"{cut} of {len(crowd.sockets)} sockets closed ({', '.join(map(str, cuts)) or 'none'})"
    tried = ", ".join(f"{n} {status}" for status, n in refused.items()) or "none"
    ROWS.append(f"| {name} | {seen} | {gap:.1f} s | {accepted}, refused: {tried} | 0 | 0 | {remedy} |")
    assert back <= RECOVERY
    return crowd


@pytest.fixture(scope="module", autouse=True)
def table() -> Any:
    """Print the table when all is done."""
    yield
    head = "| fault | sockets | longest gap | CVs accepted | CVs lost | events lost | it comes back |"
    print("", head, "|" + "---|" * 7, *ROWS, sep="\n")


async def to_server(command: str, seconds: float = 0) -> None:
    await asyncio.to_thread(on_server, command)
    await asyncio.sleep(seconds)


async def test_redis_killed() -> None:
    await measure("Redis killed", lambda _: to_server("pkill -9 -x redis-server", 5), "by itself")


async def test_worker_killed_in_mid_cv() -> None:
    """Long CVs are being read when it dies; another attempt finishes each, once."""

    async def fault(crowd: Crowd) -> None:
        async with http_client() as client:
            for person in crowd.people[:4]:
                await crowd.upload(client, person, slow_pdf())
        await to_server("pkill -9 -f '[d]ramatiq app.worker'", 5)

    await measure("worker killed in mid-CV", fault, "by itself")


async def test_api_killed() -> None:
    await measure("api killed", lambda _: to_server("pkill -9 -f '[p]ython -m app.main'", 5), "by itself")


async def test_docker_restarted() -> None:
    await measure("Docker restarted", lambda _: to_server("systemctl restart docker", 5), "by itself")


async def test_certificate_expired() -> None:
    """Open sockets live on; Full (strict) refuses what is new until there is another one."""

    async def fault(_: Crowd) -> None:
        configuration = on_server("nginx -T 2>/dev/null | grep -m1 -E '^ *ssl_certificate ' ")
        file = configuration.split()[1].rstrip(";")
        key = on_server("nginx -T 2>/dev/null | grep -m1 -E '^ *ssl_certificate_key '").split()[1].rstrip(";")
        on_server(f"cp -p {file} {file}.kept")
        try:
            on_server(
                f"openssl req -x509 -new -key {key} -subj /CN=expired -not_before 20200101000000Z"
                f" -not_after 20200102000000Z -out {file} && systemctl reload nginx"
            )
            await asyncio.sleep(5)
        finally:
            on_server(f"mv {file}.kept {file} && systemctl reload nginx")

    await measure("origin's certificate expired, Full (strict)", fault, "with a new one: runbook")


async def test_out_of_file_descriptors() -> None:
    """The api may open no file more than it has: no upload, no new connection, until it may again."""
    [pid] = on_server("pgrep -f '^python -m app.main'").split()
    usual = on_server(f"awk '/open files/ {{ print $4 }}' /proc/{pid}/limits").strip()

    async def limit(files: str) -> None:
        # As the api's own user: another one's limits may be changed only by who may exceed all.
        await to_server(
            f"setpriv --reuid $(stat -c %u /proc/{pid}) --regid $(stat -c %g /proc/{pid}) --clear-groups"
            f" prlimit --pid {pid} --nofile={files}:"
        )

    async def fault(_: Crowd) -> None:
        try:
            await limit(on_server(f"ls /proc/{pid}/fd | wc -l").strip())
            await asyncio.sleep(8)
        finally:
            await limit(usual)

    crowd = await measure("api out of file descriptors", fault, "by itself, once it may open files")
    assert sum(n for person in crowd.people for status, n in person.uploads.items() if status != 202)


CLOCK = f"{PROJECT}/clock"
# Beside the project's own file, so compose reads it by itself. A container has its machine's clock, so the
# site's processes are given one of their own; what measures durations goes on, as when a clock is set. Redis
# is not healthy under libfaketime.
FAKED = f"""
x-clock: &clock
  environment:
    LD_PRELOAD: /clock/libfaketime.so.1
    FAKETIME_TIMESTAMP_FILE: /clock/offset
    FAKETIME_NO_CACHE: "1"
    FAKETIME_DONT_FAKE_MONOTONIC: "1"
  volumes: ["{CLOCK}:/clock:ro"]
services: {{api: *clock, worker: *clock}}
"""


async def test_clock_moved() -> None:
    """An hour ahead, then back: sessions hold, and no event goes before the one that came first."""
    on_server("test -e /usr/lib/*/faketime/libfaketime.so.1 || apt-get install -qq -y libfaketime")
    skews = []

    def skew() -> None:
        now = on_server("docker compose exec -T worker python -c 'import time; print(time.time())'; date +%s")
        there, here = map(float, now.split())
        skews.append(round((there - here) / 60))

    async def fault(_: Crowd) -> None:
        for offset in ("+1h", "+0"):
            # In one step: an offset that is half written ends the process.
            await to_server(f"echo {offset} >{CLOCK}/new && mv {CLOCK}/new {CLOCK}/offset", 6)
            await asyncio.to_thread(skew)

    try:
        on_server(
            f"mkdir -p {CLOCK} && cp /usr/lib/*/faketime/libfaketime.so.1 {CLOCK} && echo +0 >{CLOCK}/offset"
            f" && cat >compose.override.yaml <<'END'\n{FAKED}\nEND\n"
            "docker compose up --detach --wait"
        )
        await measure("clock moved by an hour and back", fault, "by itself")
        assert skews == [60, 0]
    finally:
        on_server(f"rm -rf compose.override.yaml {CLOCK} && docker compose up --detach --wait")


async def test_disk_full() -> None:
    """A disk of 64 MB under Redis and the uploads, full to the last byte."""
    volumes = "/var/lib/docker/volumes"
    try:
        on_server(
            f"docker compose stop && cp -a {volumes} /tmp/volumes"
            f" && mount -t tmpfs -o size=64m tmpfs {volumes} && cp -a /tmp/volumes/. {volumes}"
            " && docker compose up --detach --wait"
        )

        async def fault(_: Crowd) -> None:
            for block in (65_536, 1):
                # Ends with an error, as it should: the disk is full.
                fill = f"dd if=/dev/zero of={volumes}/ballast-{block} bs={block} count=70000 2>&1 || true"
                await to_server(fill)
            await asyncio.sleep(8)
            await to_server(f"rm {volumes}/ballast-*")

        crowd = await measure("disk full", fault, "by itself, once there is room")
        answers = sum((person.uploads for person in crowd.people), Counter())
        # No room for the file, or none for Redis' own.
        assert answers.keys() <= {202, 503, 507}, answers
        assert answers[503] + answers[507]
    finally:
        on_server(
            f"docker compose stop && if mountpoint -q {volumes}; then"
            f" rm -rf /tmp/volumes && cp -a {volumes} /tmp/volumes && umount {volumes}"
            f" && cp -a /tmp/volumes/. {volumes}; fi && rm -rf /tmp/volumes"
            " && docker compose up --detach --wait"
        )
