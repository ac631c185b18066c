"""Clients that behave as `frontend/utils/websocket.ts` does: they reconnect and resume."""

import asyncio
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench.load import CLOSE, PING, PONG, TEXT, handshake, masked, split
from bench.stack import Stack
from tests.kit.app import ORIGIN

FIRST_DELAY, INTERVAL, LONGEST_DELAY, RESPONSE, STABLE = (
    0.5,
    3.0,
    30.0,
    10.0,
    5.0,
)  # seconds, as in websocket.ts
HINT = re.compile(rb"retry in ([0-9]+) ms")


@dataclass
class Counts:
    """What happened to all pages of one run."""

    codes: Counter[int] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    """Statuses of handshakes other than 101."""
    timeouts: int = 0
    duplicates: int = 0
    resyncs: int = 0


class Page:
    """A page with one socket, which reconnects and resumes from the last event it has seen."""

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
        self.complete = asyncio.Event()
        self.open = asyncio.Event()
        self.returned = asyncio.Event()
        self.longest_away = 0.0
        self._lost_at: float | None = None

    async def run(self) -> None:
        """Stay connected until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            opened: float | None = None
            path = f"/api/v1/cv-processing/ws/{self.user}?last_event_id={self.ids[-1]}"
            connection = _Connection(self, handshake(path, ORIGIN, self._cookie))
            try:
                async with asyncio.timeout(RESPONSE):
                    await loop.create_connection(
                        partial(_return, connection),
                        "127.0.0.1",
                        self._stack.port,
                        local_addr=(self._address, 0),
                    )
                    await connection.upgraded
                    opened = loop.time()
                    self._opened()
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

    def _opened(self) -> None:
        if self._lost_at is not None:
            self.longest_away = max(self.longest_away, loop_time() - self._lost_at)
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
        """Be complete once this many events have arrived."""
        self.wanted = events
        self.complete.clear()
        if len(self.ids) >= events:
            self.complete.set()

    def refuse(self, status: int) -> None:
        """Count a handshake that failed."""
        self._counts.refused[status] += 1

    def take(self, payload: bytes) -> None:
        """Process a message."""
        if not payload.startswith(b'{"id":"'):
            self._counts.resyncs += payload.startswith(b'{"type":"resync"')
            return
        event = payload[7 : payload.index(b'"', 7)].decode()
        if event in self.seen:
            self._counts.duplicates += 1
            return
        self.seen.add(event)
        self.ids.append(event)
        if len(self.ids) >= self.wanted:
            self.complete.set()


def _return(connection: "_Connection") -> "_Connection":
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
                waiter.exception()  # marks it as retrieved: nothing may be waiting for it any more
        if not self.ended.done():
            self.ended.set_result(None)


def loop_time() -> float:
    """Return the running loop's time."""
    return asyncio.get_running_loop().time()


class Timed(Page):
    """A page that measures the latency of each event, in seconds."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.latencies: list[float] = []

    def take(self, payload: bytes) -> None:
        """Process a message, and note its latency."""
        super().take(payload)
        sent = payload.rfind(b'"sent":')
        if sent > 0:
            self.latencies.append(time.monotonic() - float(payload[sent + 7 : -1]))
