"""A reconnect storm: all sockets connect at once and resume; then the api restarts under many sockets.

The clients connect to nginx directly and behave as `frontend/utils/websocket.ts` does. Ours and another
revision run in turn, each with a private Redis, api and nginx.
"""

import asyncio
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bench import sockets
from bench.load import Tally, connect_all, handshake
from bench.pages import Counts, Page, Timed
from bench.stack import Stack, available, cpu_seconds, kernel, memory, peak_memory, running
from bench.storm_table import Result
from tests.kit.app import ORIGIN
from tests.kit.process import REPOSITORY

STORM_LIMIT = 150.0  # seconds after which a storm is stopped, finished or not
ARRIVAL_LIMIT = 30.0  # seconds that the last events may take
SETTLE = 2.0  # seconds before a figure is read
# Sends a request every 20 ms until its input is closed, and prints how many seconds each took, 10 at most.
READYZ = """
import http.client, select, sys, time
while True:
    begin = time.perf_counter()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
        connection.request("GET", "/readyz")
        connection.getresponse().read()
    except OSError:
        pass
    print(time.perf_counter() - begin, flush=True)
    if select.select([sys.stdin], [], [], 0.02)[0]:
        break
"""
REST = 12.0  # seconds before a restart: connections count as stable, nginx's rate limits are idle again
ROUNDS = 3  # of reading the machine's memory, which other programs disturb; the median is reported
NO_LIMITS = {"nginx_handshake_rate": 0, "nginx_handshake_connections": 0}  # all clients share one address
PERIOD = 0.5  # seconds between two events of a user
P = TypeVar("P", bound=Page)


@dataclass(frozen=True)
class Size:
    """How large each part is."""

    sockets: int
    """Sockets of the storm; 0 skips it."""
    users: int
    missed: int
    """Events that each socket of the storm has missed."""
    restarted: int
    """Sockets under which the api restarts; 0 skips it."""
    addresses: int
    """Addresses that they come from."""
    office: int
    """Sockets of one address under which the api restarts; 0 skips it."""
    room: int
    """Sockets of one user; 0 skips it."""
    counted: int
    """Sockets at which the memory of the whole machine is read; 0 skips it."""
    steady: int
    """Sockets whose cost is measured in steady operation; 0 skips it."""
    load: int
    """Other programs that compete for the processor."""


class Readyz:
    """Polls the api's readiness from a separate process, so that nothing else delays it."""

    def __init__(self, stack: Stack) -> None:
        command = (sys.executable, "-c", READYZ, str(stack.site.port))
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603

    def p99(self) -> float:
        """Stop, and return the 99th percentile of the response times in seconds."""
        output, _ = self._child.communicate(b"")
        seconds = sorted(map(float, output.split()))
        return seconds[int(0.99 * (len(seconds) - 1))]


@contextmanager
def busy(programs: int) -> Iterator[None]:
    """Run this many other programs that use the processor."""
    children = [subprocess.Popen((sys.executable, "-c", "while True: pass")) for _ in range(programs)]
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


def _compare(stack: Stack, pages: Sequence[Page]) -> tuple[int, int]:
    """Return how many events were lost, and how many arrived out of order."""
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


class _Publisher:
    """Publishes an event to every user each PERIOD, numbered from `first` on."""

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
        """Stop publishing, and wait until the pages have received all events, for ARRIVAL_LIMIT at most."""
        self._stopped.set()
        await self._task
        for page in pages:
            page.want(self.published)
        await _all_set((page.complete for page in pages), ARRIVAL_LIMIT)


async def _all_set(events: Iterable[asyncio.Event], limit: float) -> float:
    """Wait for all events, for `limit` seconds at most; return how long that took, in seconds."""
    begin = time.perf_counter()
    with suppress(TimeoutError):
        async with asyncio.timeout(limit):
            for event in events:
                await event.wait()
    return time.perf_counter() - begin


async def _storm(stack: Stack, size: Size) -> dict[str, float]:
    """Connect all sockets at once, each of which has missed the same events."""
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
    tasks = [asyncio.create_task(page.run()) for page in pages]
    publisher = _Publisher(stack, users, size.missed + 1)
    ready = (event for page in pages for event in (page.complete, page.open))
    seconds = await _all_set(ready, STORM_LIMIT)
    p99 = await asyncio.to_thread(readyz.p99)
    cpu = cpu_seconds(stack.api_pid) - cpu
    await publisher.stop(pages)
    await asyncio.sleep(SETTLE)
    added = peak_memory(stack.api_pid) - before
    clock, processor = stack.longest_step(wall)
    await _cancel(tasks)
    return {
        "storm: all open and whole": seconds,
        "storm: closed with 1013": counts.codes[1013],
        "storm: time-outs": counts.timeouts,
        "storm: api processor time": cpu,
        "storm: memory added": added / 2**20,
        "storm: /readyz, p99": p99 * 1000,
        "storm: longest step of the loop": clock * 1000,
        "storm: longest step, processor time": processor * 1000,
        **_outcome(stack, pages, counts),
    }


def _outcome(stack: Stack, pages: Sequence[Page], counts: Counts) -> dict[str, float]:
    """Return what went wrong with the delivery of events."""
    lost, disordered = _compare(stack, pages)
    return {
        "lost": lost,
        "doubled": counts.duplicates,
        "out of order": disordered,
        "resyncs": counts.resyncs,
    }


async def _opened(
    stack: Stack,
    kind: type[P],
    users: list[str],
    sockets: int,
    addresses: int,
    counts: Counts,
    pace: int = 1_000,
) -> tuple[list[P], list["asyncio.Task[None]"]]:
    """Open `pace` pages a second, each resuming from its user's first event; return them and their tasks."""
    await asyncio.to_thread(stack.publish, users, range(1))
    cookies = {user: stack.cookie(user) for user in users}
    first = {user: stack.event_ids(user)[0] for user in users}
    pages, tasks = [], []
    for number in range(sockets):
        user = users[number % len(users)]
        address = f"127.0.0.{2 + number % addresses}"
        pages.append(kind(stack, user, cookies[user], first[user], address, counts))
        tasks.append(asyncio.create_task(pages[-1].run()))
        if len(tasks) % 100 == 0:
            await asyncio.sleep(100 / pace)
    for page in pages:
        await asyncio.wait_for(page.open.wait(), STORM_LIMIT)
    return pages, tasks


async def _restart(stack: Stack, size: Size) -> dict[str, float]:
    return await _restarted(stack, size.users, "restart", size.restarted, size.addresses)


async def _office(stack: Stack, size: Size) -> dict[str, float]:
    return await _restarted(stack, size.users, "office", size.office, 1)


async def _restarted(
    stack: Stack, user_count: int, name: str, sockets: int, addresses: int
) -> dict[str, float]:
    """Restart the api under many sockets while events are published."""
    users = [f"{name}-{number}" for number in range(user_count)]
    counts = Counts()
    # Slow enough that nginx refuses none, so that all start from the same state.
    pages, tasks = await _opened(stack, Page, users, sockets, addresses, counts, 100 * addresses)
    await asyncio.sleep(REST)

    publisher = _Publisher(stack, users, 1)
    await asyncio.sleep(1)
    counts.refused.clear()
    for page in pages:
        page.returned.clear()
        page.longest_away = 0.0
    begin = time.perf_counter()
    assert stack.api.child
    await asyncio.to_thread(stack.api.end)
    # Not in a thread: the child would be terminated together with the thread.
    stack.api.start()
    await _all_set((page.returned for page in pages), STORM_LIMIT)
    seconds = time.perf_counter() - begin
    await publisher.stop(pages)
    await _cancel(tasks)
    return {
        f"{name}: all back": seconds,
        f"{name}: longest away": max(page.longest_away for page in pages),
        f"{name}: handshakes refused": sum(counts.refused.values()),
        **_outcome(stack, pages, counts),
    }


async def _steady(stack: Stack, size: Size) -> dict[str, float]:
    """Measure the cost of a socket, a connect and a delivery, and the latency of an event."""
    cost = await sockets.measure(stack, size.steady)
    await asyncio.sleep(SETTLE)
    users = [f"timed-{number}" for number in range(size.users)]
    counts = Counts()
    pages, tasks = await _opened(stack, Timed, users, size.steady, size.addresses, counts)
    await asyncio.sleep(SETTLE)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.publisher", stack.redis.url, str(stack.redis.password_file), *users),
        cwd=REPOSITORY,
    )
    await child.wait()
    await asyncio.sleep(SETTLE)
    await _cancel(tasks)
    latencies = sorted(seconds for page in pages for seconds in page.latencies)
    p99 = latencies[int(0.99 * len(latencies))]
    return {
        "steady: memory of api and nginx a socket": cost.api_kib + cost.nginx_kib,
        "steady: api processor time a connect": cost.connect_ms,
        "steady: api processor time a delivery": cost.delivery_us,
        "steady: deliveries a second": cost.deliveries,
        "steady: publish to socket at 1,000 events a second, p99": p99 * 1000,
        "doubled": counts.duplicates,
    }


async def _room(stack: Stack, size: Size) -> dict[str, float]:
    """Deliver one event to many sockets of one user."""
    counts = Counts()
    pages, tasks = await _opened(stack, Page, ["room"], size.room, size.addresses, counts)
    for page in pages:
        page.want(2)
    begin = time.perf_counter()
    await asyncio.to_thread(stack.publish, ["room"], range(1, 2))
    await _all_set((page.complete for page in pages), ARRIVAL_LIMIT)
    seconds = time.perf_counter() - begin
    await asyncio.sleep(SETTLE)
    lost, _ = _compare(stack, pages)
    await _cancel(tasks)
    return {"room: all have the event": seconds * 1000, "lost": lost, "doubled": counts.duplicates}


async def _counted(stack: Stack, size: Size) -> dict[str, float]:
    """Measure how much of the machine's memory a socket takes, without the clients' own."""
    users = [f"user-{number}" for number in range(size.users)]
    cookies = {user: stack.cookie(user) for user in users}
    requests = [
        handshake(f"/api/v1/cv-processing/ws/{user}", ORIGIN, cookies[user])
        for user in (users[number % size.users] for number in range(size.counted))
    ]
    tally = Tally()
    # The first socket of each user creates what exists once.
    opened = await connect_all(stack.port, requests[: size.users], tally)
    await asyncio.sleep(SETTLE)

    def held() -> tuple[int, int, int]:
        return -available() - memory(os.getpid()), sum(map(memory, stack.processes)), kernel()

    before = held()
    opened += await connect_all(stack.port, requests[size.users :], tally)
    await asyncio.sleep(SETTLE)
    kib = [
        (now - then) / (size.counted - size.users) / 1024 for now, then in zip(held(), before, strict=True)
    ]
    for connection in opened:
        assert connection.transport
        connection.transport.abort()
    return {
        "counted: memory of the machine a socket": kib[0],
        "counted: memory of api, nginx and proxy a socket": kib[1],
        "counted: memory of the kernel a socket": kib[2],
    }


async def _cancel(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """Extract another revision's app and nginx role into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = ("git", "-C", str(REPOSITORY), "archive", revision, "app", "roles/nginx")
        archive = subprocess.run(command, capture_output=True)  # noqa: S603
        if archive.returncode:
            sys.exit(
                f"--against {revision!r} is not a revision of this repository with app and roles/nginx; "
                "see git log"
            )
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(folder, filter="data")
        yield Path(folder)


def measure(label: str, source: Path, size: Size) -> Result:
    """Run all parts with one revision."""
    values: Counter[str] = Counter()
    for part, wanted, role, rounds in (
        (_storm, size.sockets, None, 1),
        (_restart, size.restarted, None, 1),
        (_office, size.office, {}, 1),
        (_room, size.room, None, 1),
        (_counted, size.counted, NO_LIMITS, ROUNDS),
        (_steady, size.steady, None, 1),
    ):
        found = []
        for number in range(rounds if wanted else 0):
            print(
                f"{label}, {part.__name__.strip('_')}{f' {number + 1}' if rounds > 1 else ''} …", flush=True
            )
            with (
                tempfile.TemporaryDirectory() as folder,
                running("ours", Path(folder) / "stack", source=source, role=role) as stack,
                busy(size.load),
            ):
                found.append(asyncio.run(part(stack, size)))
        if found:
            values.update({name: statistics.median(each[name] for each in found) for name in found[0]})
    return Result(label, dict(values))


def run(size: Size, against: str | None) -> list[Result]:
    """Measure the other revision, if one is given, and then ours."""
    results = []
    if against:
        with checkout(against) as source:
            results.append(measure(against, source, size))
    results.append(measure("ours", REPOSITORY, size))
    return results
