"""A WebSocket through the edge: bytes relayed both ways until a side closes or the tunnel is idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from emulator.edge.http import CHUNK, HttpStream


class Tunnel:
    """Relays bytes between a visitor and an origin after the 101 response.

    `idle_seconds` returns the idle limit in seconds; after a change of the limit, call check_idle().
    """

    def __init__(self, visitor: HttpStream, origin: HttpStream, idle_seconds: Callable[[], float]) -> None:
        self._visitor = visitor
        self._origin = origin
        self._idle_seconds = idle_seconds
        self._loop = asyncio.get_running_loop()
        self._last_byte = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Relay until a side closes or the idle limit aborts both."""
        visitor, origin = self._visitor, self._origin
        visitor.writer.write(origin.http.trailing_data[0])
        origin.writer.write(visitor.http.trailing_data[0])
        self.check_idle()
        pumps = [
            asyncio.create_task(self._pump(visitor.reader, origin.writer)),
            asyncio.create_task(self._pump(origin.reader, visitor.writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self._timer:
                self._timer.cancel()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            self._last_byte = self._loop.time()
            writer.write(data)
            await writer.drain()

    def check_idle(self) -> None:
        """Abort both sides if the idle limit has passed, else check again when it could have."""
        if self._timer:
            self._timer.cancel()
        remaining = self._last_byte + self._idle_seconds() - self._loop.time()
        if remaining > 0:
            self._timer = self._loop.call_later(remaining, self.check_idle)
        else:
            self._visitor.abort()
            self._origin.abort()
