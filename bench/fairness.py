"""Fairness: one account floods the worker, another uploads a CV every other second and pings its socket."""

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from websockets.asyncio.client import ClientConnection

from bench import figures as figures_
from bench.storm import checkout
from tests.kit.app import RedisServer, Site, Worker, make_site
from tests.kit.documents import TEXT, endless_pdf
from tests.kit.process import REPOSITORY, Process

FILES = 50  # CVs of the flood, in one upload
COST = 1_500_000  # drawing operations of each, which cost all the processor time that a CV may take
SOCKETS = 8  # of the other account
PINGS_EVERY = 0.15  # seconds, on each; the api refuses more than ten a second
CVS_EVERY = 2.0  # seconds


@dataclass
class Result:
    """What the other account saw."""

    label: str
    idle: list[float] = field(default_factory=list)  # seconds of each ping before the flood
    flooded: list[float] = field(default_factory=list)  # and during it
    starts: list[float] = field(default_factory=list)  # seconds from each upload until its CV starts
    uploads: int = 0


class _Page:
    """A socket that pings, and notes when each batch starts."""

    def __init__(self, connection: ClientConnection, started: dict[str, float]) -> None:
        self._connection = connection
        self._started = started
        self._pongs: asyncio.Queue[float] = asyncio.Queue()

    async def read(self) -> None:
        async for message in self._connection:
            event = json.loads(message)
            if event["type"] == "pong":
                self._pongs.put_nowait(time.monotonic())
            elif event.get("status") == "extracting":
                self._started.setdefault(event["batch_id"], time.monotonic())

    async def ping(self, seconds: float) -> list[float]:
        found = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.monotonic()
            await self._connection.send("ping")
            found.append(await self._pongs.get() - begin)
            await asyncio.sleep(PINGS_EVERY)
        return found


async def _ping(pages: list[_Page], seconds: float) -> list[float]:
    return [
        value for found in await asyncio.gather(*(page.ping(seconds) for page in pages)) for value in found
    ]


async def _measure(site: Site, result: Result, seconds: float) -> None:
    started: dict[str, float] = {}

    def upload(user: str, files: list[tuple[str, tuple[str, bytes]]]) -> str:
        with site.http(user) as http:
            response = http.post("/batches", files=files)
        response.raise_for_status()
        return str(response.json()["batch_id"])

    async with contextlib.AsyncExitStack() as stack:
        pages = [
            _Page(await stack.enter_async_context(site.socket("other")), started) for _ in range(SOCKETS)
        ]
        reading = [asyncio.create_task(page.read()) for page in pages]
        result.idle = await _ping(pages, 5)
        costly = endless_pdf(b"(x) Tj " * COST)
        files = [("files", (f"{number}.pdf", costly)) for number in range(FILES)]
        await asyncio.to_thread(upload, "flood", files)
        await asyncio.sleep(3)
        pinging = asyncio.create_task(_ping(pages, seconds))
        sent: dict[str, float] = {}
        while not pinging.done():
            begin = time.monotonic()
            try:
                sent[await asyncio.to_thread(upload, "other", [("files", ("a.txt", TEXT.encode()))])] = begin
            except httpx.HTTPStatusError:
                break
            await asyncio.sleep(CVS_EVERY)
        result.flooded = await pinging
        now = time.monotonic()
        result.uploads = len(sent)
        # One that has not started has waited until now, at least.
        result.starts = [started.get(batch_id, now) - begin for batch_id, begin in sent.items()]
        for task in reading:
            task.cancel()


def measure(label: str, source: Path, seconds: float) -> Result:
    """Return what the other account sees of a flood with the app of one checkout."""
    result = Result(label)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        redis = RedisServer(folder, "--appendfsync", "everysec")
        redis.start()
        site = make_site(redis, folder, APP_LOG_LEVEL="WARNING")
        site.api = Process(
            *(sys.executable, "-m", "app.main", "--host", "127.0.0.1", "--port", str(site.port)),
            log=folder / "api.log", env=site.env, cwd=source,
        )  # fmt: skip
        site.worker = Worker(
            *(sys.executable, "-m", "dramatiq", "app.worker", "--processes", "1"),
            log=folder / "worker.log", env=site.env, cwd=source,
        )  # fmt: skip
        site.worker.extractor = site.extractor
        try:
            site.start()
            site.worker.start()
            asyncio.run(_measure(site, result, seconds))
        finally:
            site.worker.close()
            site.api.close()
            redis.close()
    return result


def run(seconds: float, against: str | None) -> list[Result]:
    """Measure the other revision, if one is given, and then ours."""
    results = []
    if against:
        with checkout(against) as source:
            results.append(measure(against, source, seconds))
    results.append(measure("ours", REPOSITORY, seconds))
    return results


def _p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


def table(results: list[Result]) -> str:
    """Return a Markdown table."""
    head = [
        "revision",
        "ping idle, p99",
        "ping flooded, p50",
        "ping flooded, p99",
        "CVs",
        "start, median",
        "start, longest",
    ]
    rows = [
        [
            result.label,
            *(
                f"{1000 * value:.0f} ms"
                for value in (_p99(result.idle), statistics.median(result.flooded), _p99(result.flooded))
            ),
            str(result.uploads),
            f"{statistics.median(result.starts):.2f} s",
            f"{max(result.starts):.2f} s",
        ]
        for result in results
    ]
    return figures_.table(head, rows) + "\n\n" + figures_.target_table(figures(results))


def figures(results: list[Result]) -> list[figures_.Figure]:
    """Return the figures; the targets are for ours."""
    found = []
    for result in results:
        ours = result is results[-1]
        found += [
            figures_.Figure(
                f"{result.label}: ping while flooded, p99",
                1000 * _p99(result.flooded),
                "ms",
                100 if ours else None,
            ),
            figures_.Figure(
                f"{result.label}: longest wait for a CV's start", max(result.starts), "s", 2 if ours else None
            ),
        ]
    return found
