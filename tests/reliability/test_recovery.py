"""Faults under two hundred live sockets: what users notice, what is lost, and how the site recovers.

Over a running site, named by SITE_URL, EDGE_CA_FILE and ORIGIN_CONTAINER (.demo/env). Each fault is caused on
the server itself while users upload CVs. Afterwards every socket must have received every event of its user,
once and in order, and every accepted CV must be processed, once. Prints the table of docs/reliability.md.
"""

import asyncio
import contextlib
import itertools
import os
import secrets
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import httpx
import pytest

from tests.kit.crowd import Crowd, LiveSocket
from tests.kit.documents import slow_pdf
from tests.kit.site import BATCHES, CV, PROJECT, Demo, SiteClient

pytestmark = pytest.mark.usefixtures("localhost_names")
USERS, SOCKETS_EACH = 20, 10
RECOVERY = 90.0  # seconds after the fault that the site may take until all sockets are live and all CVs done
ARRIVAL = 10.0  # seconds that a published event may take to a live socket


@dataclass
class User:
    """A signed-in user with ten sockets, and what became of the uploads."""

    client: SiteClient
    sockets: list[LiveSocket]
    accepted: list[str] = field(default_factory=list)
    responses: Counter[int | str] = field(default_factory=Counter)

    async def upload(self, http: httpx.AsyncClient, data: bytes) -> None:
        """Upload one CV; count the status or the connection error."""
        try:
            response = await http.post(
                BATCHES, files={"files": ("cv", data)}, headers={"Cookie": self.client.cookie}
            )
        except httpx.TransportError as error:
            self.responses[type(error).__name__] += 1
            return
        self.responses[response.status_code] += 1
        if response.status_code == 202:
            self.accepted.append(response.json()["batch_id"])


class Load:
    """Twenty users with ten sockets each, who upload a CV every half second."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        url, tls = os.environ["SITE_URL"], ssl.create_default_context(cafile=os.environ["EDGE_CA_FILE"])
        self.http = httpx.AsyncClient(base_url=url, verify=tls, headers={"Origin": url}, timeout=20)
        self.users = []
        for _ in range(USERS):
            client = SiteClient.sign_in(url, tls, f"fault-{secrets.token_hex(4)}")

            def open_socket(last: str | None, client: SiteClient = client) -> object:
                return client.socket(last, open_timeout=10, compression=None)

            sockets = [LiveSocket(open_socket, "0-0") for _ in range(SOCKETS_EACH)]
            self.users.append(User(client, sockets))
        self.crowd = Crowd([socket for user in self.users for socket in user.sockets])

    @property
    def responses(self) -> Counter[int | str]:
        """How often an upload was answered with each status, or failed with each error."""
        return sum((user.responses for user in self.users), Counter())

    @contextlib.asynccontextmanager
    async def uploading(self) -> AsyncIterator[None]:
        """Upload during the block; the last upload is complete at its end."""
        end = asyncio.Event()

        async def upload() -> None:
            number = 0
            while not end.is_set():
                await self.users[number % USERS].upload(self.http, CV)
                number += 1
                await asyncio.sleep(0.5)

        task = asyncio.create_task(upload())
        try:
            yield
        finally:
            end.set()
            await task

    def unfinished(self, batches: Sequence[str] | None = None) -> int:
        """Return how many batches, by default all accepted ones, are not one CV that was processed once."""
        if batches is None:
            batches = [batch for user in self.users for batch in user.accepted]
        script = "\n".join(f"HMGET batch:{batch} total done failed" for batch in batches)
        lines = self.demo.shell(f"docker compose exec -T redis redis-cli <<'END'\n{script}\nEND").split("\n")
        finished = sum(lines[start : start + 3] == ["1", "1", "0"] for start in range(0, len(lines), 3))
        return len(batches) - finished

    def published(self) -> Iterator[tuple[LiveSocket, list[str]]]:
        """Yield each socket with the ids of all events of its user."""
        for user in self.users:
            ids = self.demo.published(user.client.user)
            for socket in user.sockets:
                yield socket, ids

    def missing_events(self) -> int:
        """Return how many events have not arrived, over all sockets."""
        return sum((Counter(ids) - Counter(socket.events)).total() for socket, ids in self.published())

    def wrong_events(self) -> int:
        """Return how many events arrived twice, before an earlier one, or without being published."""
        wrong = 0
        for socket, ids in self.published():
            wrong += (Counter(socket.events) - Counter(ids)).total()
            places = {event: place for place, event in enumerate(ids)}
            arrived = [places[event] for event in socket.events if event in places]
            wrong += sum(later < earlier for earlier, later in itertools.pairwise(arrived))
        return wrong


def poll_for_zero(count: Callable[[], int], seconds: float) -> int:
    """Poll until the count is zero or the time is over; return the last count."""
    end = time.monotonic() + seconds
    while (left := count()) and time.monotonic() < end:
        time.sleep(0.5)
    return left


Fault = Callable[[Load], Awaitable[None]]
ROWS: list[str] = []


async def measure(demo: Demo, name: str, fault: Fault, recovers: str) -> Load:
    """Cause a fault under load; add a row with what was counted, then fail for anything lost."""
    load = await asyncio.to_thread(Load, demo)
    async with load.http, load.crowd.connected():
        async with load.uploading():
            await asyncio.sleep(3)
            await fault(load)
            await load.crowd.wait_until_live(RECOVERY)
            await asyncio.sleep(3)
        lost_cvs = await asyncio.to_thread(poll_for_zero, load.unfinished, RECOVERY)
        lost_events = await asyncio.to_thread(poll_for_zero, load.missing_events, ARRIVAL)
        wrong_events = await asyncio.to_thread(load.wrong_events)
    ROWS.append(row(load, name, lost_cvs, lost_events, recovers))
    assert (lost_cvs, lost_events, wrong_events) == (0, 0, 0), ROWS[-1]
    assert not any(socket.resyncs for socket in load.crowd.sockets)
    assert load.responses[202] > 0
    return load


def row(load: Load, name: str, lost_cvs: int, lost_events: int, recovers: str) -> str:
    """Return the table's row, as docs/reliability.md has it."""
    sockets = load.crowd.sockets
    closed = f"{sum(bool(socket.closes) for socket in sockets)} of {len(sockets)} closed"
    reasons = ", ".join(sorted(map(str, load.crowd.closes)))
    gap = max(socket.longest_gap for socket in sockets)
    refused = ", ".join(f"{count} × {status}" for status, count in load.responses.items() if status != 202)
    cells = (
        name,
        f"{closed} ({reasons})" if reasons else closed,
        f"{gap:.1f} s" if gap else "none",
        f"{load.responses[202]}, refused: {refused}" if refused else str(load.responses[202]),
        str(lost_cvs),
        str(lost_events),
        recovers,
    )
    return f"| {' | '.join(cells)} |"


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Print the table at the end."""
    yield
    head = "| fault | sockets | longest gap | CVs accepted | CVs lost | events lost | recovery |"
    print("", head, "|" + "---|" * 7, *ROWS, sep="\n")


async def on_server(demo: Demo, command: str, pause: float = 0) -> str:
    """Run a shell command on the server, then wait for so many seconds; return the output."""
    output = await asyncio.to_thread(demo.shell, command)
    await asyncio.sleep(pause)
    return output


async def test_redis_killed(demo: Demo) -> None:
    kill = "pkill -9 -x redis-server"
    await measure(demo, "Redis killed", lambda _: on_server(demo, kill, 5), "automatic")


async def test_worker_killed_while_it_reads_cvs(demo: Demo) -> None:
    """Another attempt finishes each CV that was being read, once."""
    reading = 0

    async def fault(load: Load) -> None:
        nonlocal reading
        slow: list[str] = []
        for user in load.users[:4]:
            await user.upload(load.http, slow_pdf())
            slow.append(user.accepted[-1])
        await on_server(demo, "pkill -9 -f '[d]ramatiq app.worker'")
        reading = await asyncio.to_thread(load.unfinished, slow)
        await asyncio.sleep(5)

    await measure(demo, "worker killed while it reads CVs", fault, "automatic")
    assert reading, "the worker was processing no CV when it was killed"


async def test_api_killed(demo: Demo) -> None:
    kill = "pkill -9 -f '[p]ython -m app.main'"
    load = await measure(demo, "api killed", lambda _: on_server(demo, kill, 5), "automatic")
    assert all(socket.closes for socket in load.crowd.sockets)


async def test_nginx_killed(demo: Demo) -> None:
    """systemd starts it again; its workers, and with them all sockets, die with the main process."""
    kill = "kill -9 $(cat /run/nginx.pid)"
    load = await measure(demo, "nginx killed", lambda _: on_server(demo, kill, 5), "automatic")
    assert all(socket.closes for socket in load.crowd.sockets)


async def test_docker_restarted(demo: Demo) -> None:
    """With live restore the containers keep running without the engine."""
    started = "docker inspect --format '{{.State.StartedAt}}' $(docker compose ps --quiet)"
    before = demo.shell(started)
    restart = "systemctl restart docker"
    await measure(demo, "Docker restarted", lambda _: on_server(demo, restart, 5), "automatic")
    assert demo.shell(started) == before


async def test_certificate_expired(demo: Demo) -> None:
    """Open sockets stay open; Full (strict) refuses new requests until the certificate is replaced."""

    def file_of(directive: str) -> str:
        line = demo.shell(f"nginx -T 2>/dev/null | grep -m1 -E '^ *{directive} '")
        return line.split()[1].rstrip(";")

    async def fault(_: Load) -> None:
        file, key = file_of("ssl_certificate"), file_of("ssl_certificate_key")
        await on_server(demo, f"cp -p {file} {file}.kept")
        try:
            await on_server(
                demo,
                f"openssl req -x509 -new -key {key} -subj /CN=expired -not_before 20200101000000Z"
                f" -not_after 20200102000000Z -out {file} && systemctl reload nginx",
                5,
            )
        finally:
            await on_server(demo, f"mv {file}.kept {file} && systemctl reload nginx")

    name = "origin's certificate expired, Full (strict)"
    load = await measure(demo, name, fault, "with a new certificate: runbook")
    assert load.responses[526]


async def test_api_out_of_file_descriptors(demo: Demo) -> None:
    """Neither uploads nor new connections succeed while the api can open no more files."""
    [pid] = demo.run("pgrep", "--full", "^python -m app.main").split()
    usual = demo.shell(f"awk '/open files/ {{ print $4 }}' /proc/{pid}/limits").strip()

    async def limit(files: str) -> None:
        # As the api's own user: without CAP_SYS_RESOURCE root may not change another user's limits.
        await on_server(
            demo,
            f"setpriv --reuid $(stat -c %u /proc/{pid}) --regid $(stat -c %g /proc/{pid}) --clear-groups"
            f" prlimit --pid {pid} --nofile={files}:",
        )

    async def fault(_: Load) -> None:
        try:
            await limit((await on_server(demo, f"ls /proc/{pid}/fd | wc -l")).strip())
            await asyncio.sleep(8)
        finally:
            await limit(usual)

    load = await measure(demo, "api out of file descriptors", fault, "automatic, once it may open files")
    assert load.responses.total() > load.responses[202]


CLOCK = f"{PROJECT}/clock"
# Compose reads it beside the project's own file. A container has its host's clock, so api and worker get one
# of their own; durations stay right, as when a clock is set. Redis fails its health check under libfaketime.
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


async def test_clock_moved(demo: Demo) -> None:
    """An hour ahead, then back: sessions stay valid, and events keep their order."""
    demo.shell("test -e /usr/lib/*/faketime/libfaketime.so.1 || apt-get install -qq -y libfaketime")
    skews = []

    async def skew() -> int:
        read = "docker compose exec -T worker python -c 'import time; print(time.time())'; date +%s"
        container, host = map(float, (await on_server(demo, read)).split())
        return round((container - host) / 60)

    async def fault(_: Load) -> None:
        for offset in ("+1h", "+0"):
            # Renamed into place: a file that is read half written ends the process.
            await on_server(demo, f"echo {offset} >{CLOCK}/new && mv {CLOCK}/new {CLOCK}/offset", 6)
            skews.append(await skew())

    try:
        demo.shell(
            f"mkdir -p {CLOCK} && cp /usr/lib/*/faketime/libfaketime.so.1 {CLOCK} && echo +0 >{CLOCK}/offset"
            f" && cat >compose.override.yaml <<'END'\n{FAKED}\nEND\n"
            "docker compose up --detach --wait"
        )
        await measure(demo, "clock moved by an hour and back", fault, "automatic")
        assert skews == [60, 0]
    finally:
        demo.shell(f"rm -rf compose.override.yaml {CLOCK} && docker compose up --detach --wait")


async def test_disk_full(demo: Demo) -> None:
    """A disk of 64 MB under Redis and the uploads, full to the last byte."""
    volumes = "/var/lib/docker/volumes"

    async def fault(_: Load) -> None:
        for block in (65_536, 1):
            # dd ends with an error when the disk is full.
            await on_server(
                demo, f"dd if=/dev/zero of={volumes}/ballast-{block} bs={block} count=70000 || true"
            )
        await asyncio.sleep(8)
        await on_server(demo, f"rm {volumes}/ballast-*")

    try:
        demo.shell(
            f"docker compose stop && cp -a {volumes} /tmp/volumes"
            f" && mount -t tmpfs -o size=64m tmpfs {volumes} && cp -a /tmp/volumes/. {volumes}"
            " && docker compose up --detach --wait"
        )
        load = await measure(demo, "disk full", fault, "automatic, once there is room")
        # 507: no room for the file; 503: none for Redis' own.
        assert load.responses.keys() <= {202, 503, 507}, load.responses
        assert load.responses[503] + load.responses[507]
    finally:
        demo.shell(
            f"docker compose stop && if mountpoint -q {volumes}; then"
            f" rm -rf /tmp/volumes && cp -a {volumes} /tmp/volumes && umount {volumes}"
            f" && cp -a /tmp/volumes/. {volumes}; fi && rm -rf /tmp/volumes"
            " && docker compose up --detach --wait"
        )
