"""Fairness: one account floods the worker, another uploads a CV every other second and pings its socket."""

import asyncio
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
from tests.kit.app import RedisServer, Site, make_site
from tests.kit.documents import TEXT, endless_pdf
from tests.kit.process import REPOSITORY, Process

FILES = 50  # CVs of the flood, in one upload
COST = 1_500_000  # drawing operations of each, which cost all the processor time that a CV may take
PINGS_EVERY = 0.02  # seconds
CVS_EVERY = 2.0  # seconds


@dataclass
class Result:
    """What the other account saw."""

    label: str
    idle: list[float] = field(default_factory=list)  # seconds of each ping before the flood
    flooded: list[float] = field(default_factory=list)  # and during it
    starts: list[float] = field(default_factory=list)  # seconds from each upload until its CV starts
    uploads: int = 0


async def _ping(connection: ClientConnection, pongs: asyncio.Queue[float], seconds: float) -> list[float]:
    found = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.monotonic()
        await connection.send("ping")
        found.append(await pongs.get() - begin)
        await asyncio.sleep(PINGS_EVERY)
    return found


async def _measure(site: Site, result: Result, seconds: float) -> None:
    pongs: asyncio.Queue[float] = asyncio.Queue()
    started: dict[str, float] = {}

    async def read(connection: ClientConnection) -> None:
        async for message in connection:
            event = json.loads(message)
            if event["type"] == "pong":
                pongs.put_nowait(time.monotonic())
            elif event.get("status") == "extracting":
                started.setdefault(event["batch_id"], time.monotonic())

    def upload(user: str, files: list[tuple[str, tuple[str, bytes]]]) -> str:
        with site.http(user) as http:
            response = http.post("/batches", files=files)
        response.raise_for_status()
        return str(response.json()["batch_id"])

    async with site.socket("other") as connection:
        reading = asyncio.create_task(read(connection))
        result.idle = await _ping(connection, pongs, 5)
        costly = endless_pdf(b"(x) Tj " * COST)
        files = [("files", (f"{number}.pdf", costly)) for number in range(FILES)]
        await asyncio.to_thread(upload, "flood", files)
        await asyncio.sleep(3)
        pinging = asyncio.create_task(_ping(connection, pongs, seconds))
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
        reading.cancel()


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
        site.worker = Process(
            *(sys.executable, "-m", "dramatiq", "app.worker", "--processes", "1"),
            log=folder / "worker.log", env=site.env, cwd=source,
        )  # fmt: skip
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
