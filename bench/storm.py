"""A storm: every socket comes at once and has missed events; then the api restarts under many sockets.

Straight at nginx, with pages that behave as `frontend/utils/websocket.ts` does. Ours and another revision run
in turn, each with a Redis, an api and an nginx of its own.
"""

import asyncio
import io
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from app.events import NO_EVENT
from bench import sockets
from bench.load import CLOSE, PING, PONG, TEXT, handshake, masked, split
from bench.stack import Stack, cpu_seconds, memory, peak_memory, running
from tests.app.kit import ORIGIN, REPOSITORY

FIRST_DELAY, INTERVAL, LONGEST_DELAY, RESPONSE, STABLE = 0.5, 3.0, 30.0, 10.0, 5.0  # websocket.ts's, seconds
HINT = re.compile(rb"retry in ([0-9]+) ms")
STORM_LIMIT = 150.0  # seconds after which a storm is ended as it is
ARRIVAL = 30.0  # seconds that the last events may take
SETTLE = 2.0  # seconds before a figure is read
# Prints the seconds that each answer took. It asks every 20 ms until its input ends, and waits 10 s at most.
READYZ = """
import http.client, select, sys, time
while not select.select([sys.stdin], [], [], 0.02)[0]:
    begin = time.perf_counter()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
        connection.request("GET", "/readyz")
        connection.getresponse().read()
    except OSError:
        pass
    print(time.perf_counter() - begin, flush=True)
"""
PERIOD = 0.5  # seconds between two events of a user meanwhile


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    sockets: int
    users: int
    missed: int
    """Events that each socket of the storm has missed."""
    restarted: int
    """Sockets under which the api restarts; 0 leaves that out."""
    addresses: int
    """Addresses that they come from."""
    steady: int
    """Sockets whose cost is measured while all is well; 0 leaves that out."""
    load: int
    """Other programs that compute meanwhile."""


@dataclass
class Counts:
    """What all pages of one run met."""

    codes: Counter[int] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    """Statuses of handshakes other than 101."""
    timeouts: int = 0
    doubled: int = 0
    resyncs: int = 0


class Page:
    """A page with one socket, which comes back by itself and goes on from the last event it has seen."""

    def __init__(self, stack: Stack, user: str, cookie: str, last: str, address: str, counts: Counts) -> None:
        self._stack = stack
        self.user = user
        self._cookie = cookie
        self._address = address
        self._counts = counts
        self._failures = 0
        self.ids: list[str] = [last]
        self.seen = {last}
        self.wanted = 1
        self.whole = asyncio.Event()
        self.open = asyncio.Event()
        self.returned = asyncio.Event()
        self.longest_away = 0.0
        self._lost_at: float | None = None

    async def run(self) -> None:
        """Live until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            opened: float | None = None
            path = f"/api/v1/cv-processing/ws/{self.user}?last_event_id={self.ids[-1]}"
            connection = _Connection(self, handshake(path, ORIGIN, self._cookie))
            try:
                async with asyncio.timeout(RESPONSE):
                    await loop.create_connection(
                        partial(_itself, connection),
                        "127.0.0.1",
                        self._stack.port,
                        local_addr=(self._address, 0),
                    )
                    await connection.upgraded
                    opened = loop.time()
                    self._came()
                    connection.ping()
                    await connection.answered
                await connection.ended
            except TimeoutError:
                self._counts.timeouts += 1
            except OSError:
                pass
            finally:
                if connection.transport:
                    connection.transport.abort()
            self.open.clear()
            self._lost_at = self._lost_at or loop.time()
            if connection.code:
                self._counts.codes[connection.code] += 1
            if opened is not None and loop.time() - opened >= STABLE:
                self._failures = 0
            await asyncio.sleep(self._delay(connection.reason))

    def _came(self) -> None:
        if self._lost_at is not None:
            self.longest_away = max(self.longest_away, time_now() - self._lost_at)
            self._lost_at = None
            self.returned.set()
        self.open.set()

    def _delay(self, reason: bytes) -> float:
        if hint := HINT.search(reason):
            self._failures = 0
            return int(hint[1]) / 1000
        ceiling = FIRST_DELAY if self._failures == 0 else INTERVAL * 2 ** (self._failures - 1)
        self._failures += 1
        return random.uniform(0, min(ceiling, LONGEST_DELAY))  # noqa: S311

    def want(self, events: int) -> None:
        """Be whole once there are so many events."""
        self.wanted = events
        self.whole.clear()
        if len(self.ids) >= events:
            self.whole.set()

    def refuse(self, status: int) -> None:
        """Count a handshake that failed."""
        self._counts.refused[status] += 1

    def take(self, payload: bytes) -> None:
        """Take a message."""
        if not payload.startswith(b'{"id":"'):
            self._counts.resyncs += payload.startswith(b'{"type":"resync"')
            return
        event = payload[7 : payload.index(b'"', 7)].decode()
        if event in self.seen:
            self._counts.doubled += 1
            return
        self.seen.add(event)
        self.ids.append(event)
        if len(self.ids) >= self.wanted:
            self.whole.set()


def _itself(connection: "_Connection") -> "_Connection":
    return connection


class _Connection(asyncio.Protocol):
    def __init__(self, page: Page, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._page = page
        self._request = request
        self._buffer = b""
        self.transport: asyncio.Transport | None = None
        self.upgraded: asyncio.Future[None] = loop.create_future()
        self.answered: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.code = 0
        self.reason = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def ping(self) -> None:
        assert self.transport
        self.transport.write(masked(TEXT, b"ping"))

    def data_received(self, data: bytes) -> None:
        if self.ended.done():
            return
        data = self._buffer + data
        if not self.upgraded.done():
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._page.refuse(int(head.split(None, 2)[1]))
                self._end()
                return
            self.upgraded.set_result(None)
        found, self._buffer = split(data)
        for opcode, payload in found:
            if opcode == TEXT:
                if not self.answered.done():
                    self.answered.set_result(None)
                self._page.take(payload)
            elif opcode == PING and self.transport:
                self.transport.write(masked(PONG, payload))
            elif opcode == CLOSE:
                self.code = int.from_bytes(payload[:2])
                self.reason = payload[2:]
                self._end()
                return

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        for waiter in (self.upgraded, self.answered):
            if not waiter.done():
                waiter.set_exception(ConnectionError("closed"))
                waiter.exception()  # somebody may not wait for it any more
        if not self.ended.done():
            self.ended.set_result(None)


def time_now() -> float:
    """Return the running loop's time."""
    return asyncio.get_running_loop().time()


class Readyz:
    """Asks the api again and again whether it is ready, from a process that nothing else keeps waiting."""

    def __init__(self, stack: Stack) -> None:
        command = (sys.executable, "-c", READYZ, str(stack.site.port))
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603

    def p99(self) -> float:
        """Stop, and return the seconds that 99 of 100 answers took at most."""
        output, _ = self._child.communicate(b"")
        seconds = sorted(map(float, output.split()))
        return seconds[int(0.99 * (len(seconds) - 1))]


@contextmanager
def busy(programs: int) -> Iterator[None]:
    """Let so many other programs compute meanwhile."""
    children = [subprocess.Popen((sys.executable, "-c", "while True: pass")) for _ in range(programs)]
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


@dataclass(frozen=True)
class Result:
    """The figures of one revision: names as in `UNITS`."""

    label: str
    values: dict[str, float]


UNITS = {
    "storm: all open and whole": "s",
    "storm: closed with 1013": "",
    "storm: time-outs": "",
    "storm: api processor time": "s",
    "storm: memory added": "MiB",
    "storm: /readyz, p99": "ms",
    "storm: longest step of the loop": "ms",
    "storm: longest step, processor time": "ms",
    "restart: all back": "s",
    "restart: longest away": "s",
    "restart: handshakes refused": "",
    "steady: memory of api and nginx a socket": "KiB",
    "steady: api processor time a connect": "ms",
    "steady: api processor time a delivery": "µs",
    "steady: deliveries a second": "",
    "steady: publish to socket at 1,000 events a second, p99": "ms",
    "lost": "",
    "doubled": "",
    "out of order": "",
    "resyncs": "",
}
# Of the other revision's figure; those that must be nothing; and bounds of their own.
RATIOS = {
    "storm: all open and whole": 0.08,
    "storm: api processor time": 0.08,
    "storm: memory added": 0.5,
    "restart: all back": 0.2,
    "restart: longest away": 0.2,
    "steady: api processor time a connect": 0.6,
    "steady: api processor time a delivery": 0.6,
    "steady: publish to socket at 1,000 events a second, p99": 0.5,
}
AT_LEAST = {"steady: deliveries a second": 1.7}
NOTHING = ("storm: closed with 1013", "storm: time-outs", "lost", "doubled", "out of order")
BOUNDS = {"storm: /readyz, p99": 250.0, "storm: longest step, processor time": 50.0}


def _verdict(stack: Stack, pages: Sequence[Page]) -> tuple[int, int]:
    """Return how many events were lost, and how many came in another order."""
    lost = disordered = 0
    histories = {user: stack.event_ids(user) for user in {page.user for page in pages}}
    for page in pages:
        history = histories[page.user]
        truth = history[history.index(page.ids[0]) + 1 :]
        got = page.ids[1:]
        lost += len(set(truth) - set(got))
        expected = [event for event in truth if event in page.seen]
        disordered += sum(a != b for a, b in zip(got, expected, strict=False))
    return lost, disordered


class _News:
    """Publishes an event to every user each so often, from the first number on."""

    def __init__(self, stack: Stack, users: list[str], first: int) -> None:
        self._stack = stack
        self._users = users
        self.published = first
        self._stopped = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._stopped.is_set():
            numbers = range(self.published, self.published + 1)
            await asyncio.to_thread(self._stack.publish, self._users, numbers)
            self.published += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), PERIOD)

    async def stop(self, pages: Sequence[Page]) -> None:
        """Publish no more, and wait until the pages have all, for a while."""
        self._stopped.set()
        await self._task
        with suppress(TimeoutError):
            async with asyncio.timeout(ARRIVAL):
                for page in pages:
                    page.want(self.published)
                    await page.whole.wait()


async def _storm(stack: Stack, size: Size) -> dict[str, float]:
    """Let all come at once, each having missed the same."""
    users = [f"user-{number}" for number in range(size.users)]
    await asyncio.to_thread(stack.publish, users, range(size.missed + 1))
    cookies = {user: stack.cookie(user) for user in users}
    first = {user: stack.event_ids(user)[0] for user in users}
    counts = Counts()
    pages = [
        Page(stack, user, cookies[user], first[user], "127.0.0.1", counts)
        for user in (users[number % size.users] for number in range(size.sockets))
    ]
    for page in pages:
        page.want(size.missed + 1)
    before, cpu, wall = memory(stack.api_pid), cpu_seconds(stack.api_pid), time.time()
    readyz = Readyz(stack)
    begin = time.perf_counter()
    tasks = [asyncio.create_task(page.run()) for page in pages]
    news = _News(stack, users, size.missed + 1)
    with suppress(TimeoutError):
        async with asyncio.timeout(STORM_LIMIT):
            for page in pages:
                await page.whole.wait()
                await page.open.wait()
    seconds = time.perf_counter() - begin
    p99 = await asyncio.to_thread(readyz.p99)
    cpu = cpu_seconds(stack.api_pid) - cpu
    await news.stop(pages)
    await asyncio.sleep(SETTLE)
    added = peak_memory(stack.api_pid) - before
    clock, processor = stack.longest_step(wall)
    lost, disordered = _verdict(stack, pages)
    await _end(tasks)
    return {
        "storm: all open and whole": seconds,
        "storm: closed with 1013": counts.codes[1013],
        "storm: time-outs": counts.timeouts,
        "storm: api processor time": cpu,
        "storm: memory added": added / 2**20,
        "storm: /readyz, p99": p99 * 1000,
        "storm: longest step of the loop": clock * 1000,
        "storm: longest step, processor time": processor * 1000,
        "lost": lost,
        "doubled": counts.doubled,
        "out of order": disordered,
        "resyncs": counts.resyncs,
    }


async def _restart(stack: Stack, size: Size) -> dict[str, float]:
    """Restart the api under many sockets while events go on."""
    users = [f"restart-{number}" for number in range(size.users)]
    await asyncio.to_thread(stack.publish, users, range(1))
    cookies = {user: stack.cookie(user) for user in users}
    first = {user: stack.event_ids(user)[0] for user in users}
    counts = Counts()
    pages = []
    for number in range(size.restarted):
        user = users[number % size.users]
        address = f"127.0.0.{2 + number % size.addresses}"
        pages.append(Page(stack, user, cookies[user], first[user], address, counts))
    tasks = []
    for page in pages:
        tasks.append(asyncio.create_task(page.run()))
        if len(tasks) % 100 == 0:
            await asyncio.sleep(0.1)
    for page in pages:
        await asyncio.wait_for(page.open.wait(), STORM_LIMIT)
    await asyncio.sleep(STABLE + SETTLE)

    news = _News(stack, users, 1)
    await asyncio.sleep(1)
    counts.refused.clear()
    for page in pages:
        page.returned.clear()
    begin = time.perf_counter()
    assert stack.api.child
    await asyncio.to_thread(stack.api.end)
    # Not in a thread: the child would end with it.
    stack.api.start()
    with suppress(TimeoutError):
        async with asyncio.timeout(STORM_LIMIT):
            for page in pages:
                await page.returned.wait()
    seconds = time.perf_counter() - begin
    await news.stop(pages)
    lost, disordered = _verdict(stack, pages)
    await _end(tasks)
    return {
        "restart: all back": seconds,
        "restart: longest away": max(page.longest_away for page in pages),
        "restart: handshakes refused": sum(counts.refused.values()),
        "lost": lost,
        "doubled": counts.doubled,
        "out of order": disordered,
        "resyncs": counts.resyncs,
    }


class _Timed(Page):
    """A page that notes how long each event took."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.took: list[float] = []

    def take(self, payload: bytes) -> None:
        """Take a message, and the time."""
        super().take(payload)
        sent = payload.rfind(b'"sent":')
        if sent > 0:
            self.took.append(time.monotonic() - float(payload[sent + 7 : -1]))


async def _steady(stack: Stack, size: Size) -> dict[str, float]:
    """Measure what a socket, a connect and a delivery cost, and how long an event takes."""
    cost = await sockets.measure(stack, size.steady)
    await asyncio.sleep(SETTLE)
    users = [f"timed-{number}" for number in range(size.users)]
    cookies = {user: stack.cookie(user) for user in users}
    counts = Counts()
    pages = [
        _Timed(stack, user, cookies[user], NO_EVENT, "127.0.0.1", counts)
        for user in (users[number % size.users] for number in range(size.steady))
    ]
    tasks = [asyncio.create_task(page.run()) for page in pages]
    for page in pages:
        await page.open.wait()
    await asyncio.sleep(SETTLE)
    publisher = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.publisher", stack.redis.url, str(stack.redis.password_file), *users),
        cwd=REPOSITORY,
    )
    await publisher.wait()
    await asyncio.sleep(SETTLE)
    await _end(tasks)
    took = sorted(seconds for page in pages for seconds in page.took)
    return {
        "steady: memory of api and nginx a socket": cost.api_kib + cost.nginx_kib,
        "steady: api processor time a connect": cost.connect_ms,
        "steady: api processor time a delivery": cost.delivery_us,
        "steady: deliveries a second": cost.deliveries,
        "steady: publish to socket at 1,000 events a second, p99": took[int(0.99 * len(took))] * 1000,
        "doubled": counts.doubled,
    }


async def _end(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """Lay another revision's app into a folder for a while."""
    with tempfile.TemporaryDirectory() as folder:
        command = ("git", "-C", str(REPOSITORY), "archive", revision, "app")
        archive = subprocess.run(command, capture_output=True)  # noqa: S603
        if archive.returncode:
            sys.exit(
                f"--against {revision!r} is not a revision of this repository that has an app; see git log"
            )
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(folder, filter="data")
        yield Path(folder)


def measure(label: str, source: Path, size: Size) -> Result:
    """Let one revision go through it all."""
    values: Counter[str] = Counter()
    parts = [_storm] + [_restart] * bool(size.restarted) + [_steady] * bool(size.steady)
    for part in parts:
        print(f"{label}, {part.__name__.strip('_')} …", flush=True)
        with (
            tempfile.TemporaryDirectory() as folder,
            running("ours", Path(folder) / "stack", source=source) as stack,
            busy(size.load),
        ):
            values.update(asyncio.run(part(stack, size)))
    return Result(label, dict(values))


def run(size: Size, against: str | None) -> list[Result]:
    """Measure the other revision, if there is one, and ours."""
    results = []
    if against:
        with checkout(against) as source:
            results.append(measure(against, source, size))
    results.append(measure("ours", REPOSITORY, size))
    return results


def figures(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return ours with the targets; a ratio is of the other revision's figure."""
    ours = results[-1].values
    found: list[dict[str, Any]] = []

    def add(name: str, value: float, unit: str, target: float | None, *, least: bool = False) -> None:
        met = None if target is None else value >= target if least else value <= target
        found.append({"name": name, "value": round(value, 4), "unit": unit, "target": target, "met": met})

    for name, value in ours.items():
        add(name, value, UNITS[name], 0 if name in NOTHING else BOUNDS.get(name))
    if len(results) > 1:
        for name, bound in (RATIOS | AT_LEAST).items():
            if name in ours:
                ratio = ours[name] / max(results[0].values[name], 1e-9)
                add(f"{name}: ours over {results[0].label}'s", ratio, "", bound, least=name in AT_LEAST)
    return found


def table(results: Sequence[Result]) -> str:
    """Return two Markdown tables: what was measured, and the targets."""
    lines = [
        "| | " + " | ".join(result.label for result in results) + " |",
        "|---|" + "---:|" * len(results),
    ]
    for name, unit in UNITS.items():
        if name in results[-1].values:
            cells = (f"{result.values[name]:,.1f}".removesuffix(".0") for result in results)
            lines.append(f"| {name} | " + " | ".join(f"{cell} {unit}".strip() for cell in cells) + " |")
    lines += ["", "| target | measured | wanted | |", "|---|---:|---:|---|"]
    lines += [
        f"| {figure['name']} | {figure['value']:,.3g} {figure['unit']} | "
        f"{'≥' if figure['name'].rpartition(': ')[0] in AT_LEAST else '≤'} {figure['target']:g} | "
        f"{'met' if figure['met'] else 'missed'} |"
        for figure in figures(results)
        if figure["target"] is not None
    ]
    return "\n".join(lines)
