"""Many WebSockets that stay open: like the page, each reconnects and resumes when it is closed."""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import websockets
from websockets.asyncio.client import connect


class LiveSocket:
    """One such client, with what it received and how it was closed.

    `open_socket` returns a connection that resumes after an event's id, at first after `last`. It pings once
    per connection, and with `ping_seconds` again so long after each pong.
    """

    def __init__(
        self,
        open_socket: Callable[[str | None], connect],
        last: str | None = None,
        ping_seconds: float | None = None,
    ) -> None:
        self.last = last
        self.live = False
        self.events: list[str] = []
        self.resyncs = 0
        self.closes: Counter[int | str] = Counter()
        self.longest_gap = 0.0
        self._open_socket = open_socket
        self._ping_seconds = ping_seconds
        self._down_since: float | None = None

    async def run(self) -> None:
        """Keep the socket open until the task is cancelled."""
        while True:
            try:
                async with self._open_socket(self.last) as socket:
                    await socket.send("ping")
                    async for text in socket:
                        message = json.loads(text)
                        self._receive(message)
                        if message["type"] == "pong" and self._ping_seconds is not None:
                            await asyncio.sleep(self._ping_seconds)
                            await socket.send("ping")
                self.closes[socket.close_code or 1006] += 1
            except websockets.ConnectionClosed as error:
                self.closes[error.rcvd.code if error.rcvd else 1006] += 1
            except websockets.InvalidStatus as error:
                self.closes[f"HTTP {error.response.status_code}"] += 1
            except (OSError, websockets.WebSocketException, TimeoutError) as error:
                self.closes[type(error).__name__] += 1
            self.live = False
            self._down_since = self._down_since or time.monotonic()
            await asyncio.sleep(random.uniform(0.5, 1.5))

    def _receive(self, message: dict[str, Any]) -> None:
        if message["type"] == "pong":
            self.live = True
            if self._down_since is not None:
                self.longest_gap = max(self.longest_gap, time.monotonic() - self._down_since)
                self._down_since = None
        elif message["type"] == "resync":
            self.resyncs += 1
            self.last = message["snapshot"]["last_event_id"]
        elif "id" in message:
            self.events.append(message["id"])
            self.last = message["id"]


class Crowd:
    """Live sockets that run together."""

    def __init__(self, sockets: Sequence[LiveSocket]) -> None:
        self.sockets = sockets

    @property
    def all_live(self) -> bool:
        return all(socket.live for socket in self.sockets)

    @property
    def closes(self) -> Counter[int | str]:
        """How often a socket was closed or refused, by close code, HTTP status or error."""
        return sum((socket.closes for socket in self.sockets), Counter())

    @contextlib.asynccontextmanager
    async def connected(self, seconds: float = 60) -> AsyncIterator[None]:
        """Keep the sockets open during the block, which begins when all of them are live."""
        tasks = [asyncio.create_task(socket.run()) for socket in self.sockets]
        try:
            await self.wait_until_live(seconds)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def wait_until_live(self, seconds: float) -> None:
        """Wait until every socket is live. Raises AssertionError at the time limit."""
        end = time.monotonic() + seconds
        while not self.all_live:
            down = sum(not socket.live for socket in self.sockets)
            closes = dict(self.closes)
            assert time.monotonic() < end, f"{down} sockets are down after {seconds} s; closed by {closes}"
            await asyncio.sleep(0.1)
