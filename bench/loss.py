"""Events lost during seven faults, in both designs, while events are published.

An event takes the real path: Redis, the api, nginx, the emulated edge, and a socket that reconnects.
"""

import asyncio
import json
import random
import secrets
import signal
import ssl
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Origin

from app.events import NO_EVENT
from bench.figures import Figure, table
from bench.stack import Design, Stack, running
from tests.kit.app import ORIGIN
from tests.kit.process import Process, free_port, wait_until

INTERVAL = 0.1  # seconds between two events of one user
BEFORE, AFTER = 2.0, 3.0  # seconds of publishing before a fault and after it
ARRIVAL_LIMIT = 15.0  # seconds that the last events may take
OFFLINE = 3.0  # seconds that a browser is offline
RETRY_MAX = 1.0  # seconds before a client reconnects, at most
SHUTDOWN = 2  # seconds that nginx's old workers keep their sockets after a reload


@dataclass
class Client:
    """A user's socket, which reconnects whenever it is lost; with our design it resumes from the last id."""

    user: str
    resumes: bool
    ids: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    resyncs: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    longest_gap: float = 0.0
    live: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    connection: ClientConnection | None = None
    away_until: float = 0.0
    _last_time: float = 0.0

    async def run(self, edge: "Edge", cookie: str) -> None:
        """Listen until cancelled."""
        while True:
            last = f"?last_event_id={self.ids[-1] if self.ids else NO_EVENT}" if self.resumes else ""
            with suppress(OSError, InvalidHandshake, TimeoutError, ConnectionClosed):
                async with connect(
                    f"wss://{edge.host}:{edge.port}/api/v1/cv-processing/ws/{self.user}{last}",
                    host="127.0.0.1",
                    ssl=edge.tls,
                    origin=Origin(ORIGIN),
                    additional_headers={"Cookie": cookie},
                    compression=None,
                    proxy=None,
                ) as self.connection:
                    self.live.set()
                    with suppress(ConnectionClosed):
                        while True:
                            self._process(json.loads(await self.connection.recv()))
                    self.codes[self.connection.close_code or 1006] += 1
            self.live.clear()
            delay = max(self.away_until - time.monotonic(), 0) + random.uniform(0, RETRY_MAX)  # noqa: S311
            await asyncio.sleep(delay)

    def _process(self, event: dict[str, object]) -> None:
        if event["type"] == "resync":
            self.resyncs += 1
        if event["type"] != "cv_progress":
            return
        now = time.monotonic()
        self.longest_gap = max(self.longest_gap, now - (self._last_time or now))
        self._last_time = now
        self.ids.append(str(event.get("id")))
        self.numbers.append(int(str(event["number"])))
        self.news.set()


@dataclass(frozen=True)
class Edge:
    """The emulated edge in front of nginx."""

    host: str
    port: int
    control: str
    tls: ssl.SSLContext


@contextmanager
def running_edge(stack: Stack, folder: Path) -> Iterator[Edge]:
    """Run the emulated Cloudflare in front of the stack's nginx."""
    host = ORIGIN.partition("//")[2]
    https, http, api = free_port(), free_port(), free_port()
    token = folder / "token"
    token.write_text(secrets.token_hex(24))
    options = {
        "zone": host,
        "token-file": token,
        "state-dir": folder / "state",
        "origin": "127.0.0.1",
        "settings": "ssl=flexible,websockets=on,rocket_loader=off,always_use_https=off",
        "https-port": https,
        "http-port": http,
        "api-port": api,
        "origin-http-port": stack.port,
        "log-level": "warning",
    }
    process = Process(
        *(sys.executable, "-m", "emulator"),
        *(word for name, value in options.items() for word in (f"--{name}", str(value))),
        log=folder / "edge.log",
    )
    process.start()
    try:
        control = f"http://127.0.0.1:{api}/_emulator"

        def authority() -> str:
            with suppress(httpx.TransportError):
                return httpx.get(f"{control}/edge-ca.pem").text
            return ""

        pem = wait_until("the edge answers", authority)
        yield Edge(host, https, control, ssl.create_default_context(cadata=pem))
    finally:
        process.close()


class Publisher(threading.Thread):
    """Publishes a numbered event to every user each INTERVAL, and repeats it while Redis fails."""

    def __init__(self, stack: Stack, users: list[str]) -> None:
        super().__init__(daemon=True)
        self._stack = stack
        self._users = users
        self._stopped = threading.Event()
        self.published: set[int] = set()
        """Numbers that Redis confirmed for every user."""
        self.repeated: set[int] = set()
        """Numbers that were sent again after an error, so that some users may have them twice."""

    def run(self) -> None:
        """Publish."""
        number, due = 0, time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            try:
                self._stack.publish(self._users, range(number, number + 1))
            except redis.RedisError:
                self.repeated.add(number)
                due = time.monotonic() + INTERVAL
                continue
            self.published.add(number)
            number += 1
            due = max(due + INTERVAL, time.monotonic() - 1)

    def stop(self) -> None:
        """Stop after the event in progress."""
        self._stopped.set()
        self.join()


@dataclass(frozen=True)
class Loss:
    """The effect of one fault on one design: events published, lost and duplicated over all clients."""

    design: Design
    fault: str
    published: int
    lost: int
    duplicated: int
    longest_gap: float
    """The longest time in seconds that a client waited for its next event."""
    codes: tuple[int, ...]
    """Close codes that clients received, the most frequent first."""


Fault = Callable[[Stack, Edge, Sequence[Client]], Awaitable[None]]


async def cut_at_the_edge(stack: Stack, edge: Edge, clients: Sequence[Client]) -> None:
    """Drop every connection at the edge, as a release of Cloudflare does."""
    async with httpx.AsyncClient() as http:
        (await http.post(f"{edge.control}/edge/cut")).raise_for_status()


async def restart_api(stack: Stack, edge: Edge, clients: Sequence[Client]) -> None:
    """Stop the api by SIGTERM and start it again."""
    await asyncio.to_thread(stack.api.end)
    await _start_api(stack)


async def kill_api(stack: Stack, edge: Edge, clients: Sequence[Client]) -> None:
    """Kill the api and start it again."""
    await asyncio.to_thread(stack.api.end, signal.SIGKILL)
    await _start_api(stack)


async def _start_api(stack: Stack) -> None:
    stack.api.start()
    await asyncio.to_thread(wait_until, "the api answers", stack.ready)


async def restart_redis(stack: Stack, edge: Edge, clients: Sequence[Client]) -> None:
    """Stop Redis by SIGTERM and start it again."""
    await asyncio.to_thread(stack.redis.end)
    # Not in a thread: the child would be terminated together with the thread.
    stack.redis.start()


async def cut_redis(stack: Stack, edge: Edge, clients: Sequence[Client]) -> None:
    """Close the api's Pub/Sub connections only."""
    await asyncio.to_thread(stack.redis.client.execute_command, "CLIENT", "KILL", "TYPE", "pubsub")


async def reload_nginx(stack: Stack, edge: Edge, clients: Sequence[Client]) -> None:
    """Reload nginx, whose old worker closes its sockets after SHUTDOWN."""
    assert stack.nginx.child
    stack.nginx.child.send_signal(signal.SIGHUP)
    await asyncio.sleep(SHUTDOWN)


async def go_offline(stack: Stack, edge: Edge, clients: Sequence[Client]) -> None:
    """Take all clients offline for OFFLINE seconds."""
    for client in clients:
        client.away_until = time.monotonic() + OFFLINE
        if client.connection:
            client.connection.transport.abort()
    await asyncio.sleep(OFFLINE)


FAULTS: dict[str, Fault] = {
    "socket cut at the edge": cut_at_the_edge,
    "api restarted": restart_api,
    "api killed": kill_api,
    "Redis restarted": restart_redis,
    "the api's Redis subscription cut": cut_redis,
    "nginx reloaded": reload_nginx,
    "browser offline for 3 s": go_offline,
}


async def inject(stack: Stack, edge: Edge, name: str, users: list[str]) -> Loss:
    """Publish to all users, cause the fault while publishing, and count what arrived.

    Raises AssertionError when events arrive out of order.
    """
    ours = stack.design == "ours"
    clients = [Client(user, resumes=ours) for user in users]
    listening = [asyncio.create_task(client.run(edge, stack.cookie(client.user))) for client in clients]
    for client in clients:
        await asyncio.wait_for(client.live.wait(), ARRIVAL_LIMIT)
    # The guide's backend accepts before it subscribes.
    await asyncio.sleep(1)
    publisher = Publisher(stack, users)
    publisher.start()
    try:
        await asyncio.sleep(BEFORE)
        await FAULTS[name](stack, edge, clients)
        await asyncio.sleep(AFTER)
    finally:
        await asyncio.to_thread(publisher.stop)

    published = lost = duplicated = 0
    end = asyncio.get_running_loop().time() + ARRIVAL_LIMIT
    for client in clients:
        # Ours keeps a history to compare with; of the guide's design only the confirmed events are known.
        expected = stack.event_ids(client.user) if ours else sorted(publisher.published)
        received = client.ids if ours else client.numbers
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                while not set(expected) <= set(received):
                    await client.news.wait()
                    client.news.clear()
        published += len(expected)
        lost += len(set(expected) - set(received)) + client.resyncs
        seen = Counter(received)
        duplicated += sum(
            seen[item] - 1 for item in expected if item in seen and item not in publisher.repeated
        )
        if ours and received != expected and not lost and not duplicated:
            raise AssertionError(
                f"{client.user} received its events out of order: {received}, not {expected}"
            )
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    codes = sum((client.codes for client in clients), Counter[int]())
    gap = max(client.longest_gap for client in clients)
    return Loss(
        stack.design, name, published, lost, duplicated, gap, tuple(code for code, _ in codes.most_common(3))
    )


def run(designs: Sequence[Design], clients: int) -> list[Loss]:
    """Cause each fault in each design with this many clients."""
    losses: list[Loss] = []
    for design in designs:
        with (
            tempfile.TemporaryDirectory() as folder,
            running(design, Path(folder) / design, SHUTDOWN) as stack,
            running_edge(stack, Path(folder)) as edge,
        ):
            for number, name in enumerate(FAULTS):
                print(f"{design}, {name} …", flush=True)
                users = [f"fault-{number}-{client}" for client in range(clients)]
                losses.append(asyncio.run(inject(stack, edge, name, users)))
    return losses


def losses_table(losses: Sequence[Loss]) -> str:
    """Return a Markdown table, with the designs of one fault below each other."""
    rows = [
        (
            loss.fault,
            loss.design,
            ", ".join(map(str, loss.codes)) or "none",
            f"{loss.published:,}",
            f"{loss.lost:,}",
            f"{loss.duplicated:,}",
            f"{loss.longest_gap:.1f} s",
        )
        for loss in sorted(losses, key=lambda loss: list(FAULTS).index(loss.fault))
    ]
    head = ("fault", "design", "close codes", "published", "lost", "duplicated", "longest gap")
    return table(head, rows, left=3)


def figures(losses: Sequence[Loss]) -> list[Figure]:
    """Return all figures. The targets: our design loses and duplicates nothing."""
    found = []
    for loss in losses:
        name, target = f"{loss.fault}, {loss.design}", 0 if loss.design == "ours" else None
        found += [
            Figure(f"{name}: published", loss.published, "events"),
            Figure(f"{name}: lost", loss.lost, "events", target),
            Figure(f"{name}: duplicated", loss.duplicated, "events", target),
            Figure(f"{name}: longest gap", loss.longest_gap, "s"),
        ]
    return found
