"""Many minimal WebSocket clients in one process: each sends a handshake and counts event frames."""

import asyncio
import base64
import os
from dataclasses import dataclass, field

CONCURRENCY = 100  # handshakes at the same time
EVENT = b'"number":'  # contained only in events
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA  # RFC 6455, section 11.8


@dataclass
class Tally:
    """Counts the events that all sockets have received, and lets a caller wait for a number of them."""

    events: int = 0
    lost: int = 0
    _wanted: int = 0
    _reached: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, events: int) -> None:
        """Count events."""
        self.events += events
        if self.events >= self._wanted:
            self._reached.set()

    def lose(self) -> None:
        """Count a lost socket, and end the wait for its events."""
        self.lost += 1
        self._reached.set()

    async def reach(self, events: int, seconds: float) -> None:
        """Wait for a total of events. Raises TimeoutError, or ConnectionError when a socket was lost."""
        self._wanted = events
        if self.events < events:
            self._reached.clear()
            async with asyncio.timeout(seconds):
                await self._reached.wait()
        if self.events < events:
            raise ConnectionError(f"{self.lost} sockets were lost")


class Socket(asyncio.Protocol):
    """One WebSocket. `opened` is set after status 101, and has an exception after any other."""

    __slots__ = ("_buffer", "_request", "_tally", "_upgraded", "opened", "transport")

    def __init__(self, request: bytes, tally: Tally) -> None:
        self._request = request
        self._tally = tally
        self._buffer = b""
        self._upgraded = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the handshake."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Parse the response to the handshake, then count event frames."""
        data = self._buffer + data
        if not self._upgraded:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.opened.set_exception(ConnectionError(head.splitlines()[0].decode(errors="replace")))
                return
            self._upgraded = True
            if not self.opened.done():  # cancelled when another socket failed
                self.opened.set_result(None)
        events = 0
        found, self._buffer = split(data)
        for opcode, payload in found:
            if opcode == PING:
                assert self.transport
                self.transport.write(masked(PONG, payload))
            events += EVENT in payload
        if events:
            self._tally.add(events)

    def connection_lost(self, error: Exception | None) -> None:
        """Count the socket as lost."""
        self._tally.lose()
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("closed before the answer"))


def split(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the complete frames at the start of `data` as (opcode, payload), and the remaining bytes."""
    found, begin = [], 0
    while len(data) - begin >= 2:
        length, start = data[begin + 1] & 0x7F, begin + 2
        if length == 126:
            length, start = int.from_bytes(data[start : start + 2]), start + 2
        elif length == 127:
            length, start = int.from_bytes(data[start : start + 8]), start + 8
        if len(data) < start + length:
            break
        found.append((data[begin] & 0x0F, data[start : start + length]))
        begin = start + length
    return found, data[begin:]


def masked(opcode: int, payload: bytes) -> bytes:
    """Return a short client frame. Clients must mask; a mask of zeros leaves the payload unchanged."""
    return bytes((0x80 | opcode, 0x80 | len(payload))) + bytes(4) + payload


def handshake(path: str, origin: str, cookie: str) -> bytes:
    """Return the request that opens a WebSocket."""
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: {origin.partition('//')[2]}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        f"Origin: {origin}\r\nCookie: {cookie}\r\n\r\n"
    ).encode()


async def connect_all(port: int, requests: list[bytes], tally: Tally) -> list[Socket]:
    """Open a socket to 127.0.0.1 for each request. Raises ConnectionError for the first that is refused."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def one(request: bytes) -> Socket:
        async with slots:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Socket(request, tally), "127.0.0.1", port
            )
            await connection.opened
            return connection

    return list(await asyncio.gather(*map(one, requests)))
