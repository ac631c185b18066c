"""uvicorn's protocols, with eight things that an application can't reach."""

import gc
import os
import random
import time
from asyncio import BaseTransport, Future, Task, TimerHandle, get_running_loop, shield
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame
from websockets.http11 import Request

from app.rate import FLOOD, FLOOD_REASON, Rate

SHUTDOWN_SPREAD = 1.0  # seconds at most over which sockets are closed
SHUTDOWN_RATE = 100  # sockets closed in a second, when that ends sooner
STARTUP_MARGIN = 1.25  # times its own start that the next process may take
RESTART = 1012  # close code
RETURN_RATE = 1_000  # clients that a new process is sent in a second; it serves more
FRAME_WRITER = "app.frame_writer"  # the scope's extension that is the protocol, as app.room's FrameWriter
HANDSHAKES_AT_ONCE = 4  # of those that have come, before the event loop turns to others
FROZEN_AT_ONCE = 100  # new sockets after which the garbage collector is told to leave what lives alone
LINGER = 1.0  # seconds for which a refused peer's bytes are still taken
CLOSE_TIMEOUT = 30.0  # seconds that a peer has to take the rest once its socket is being closed


def retry_in(reason: str, seconds: float) -> str:
    """Return a close reason that also says when the client may come back."""
    return f"{reason}; retry in {seconds * 1000:.0f} ms"


def seconds_since_start() -> float:
    """Return how long ago this process was started."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


class HttpProtocol(HttpToolsProtocol):
    """Leaves nothing behind when a connection becomes a WebSocket."""

    def handle_websocket_upgrade(self) -> None:
        """Also break the cycle with the parser, so that it needs no garbage collector."""
        super().handle_websocket_upgrade()
        self.parser = None  # type: ignore[assignment]


class _Inbox:
    """asyncio.Queue for one reader, in a tenth of its memory."""

    __slots__ = ("_messages", "_waiter")

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._waiter: Future[None] | None = None

    def put_nowait(self, message: Any) -> None:
        self._messages.append(message)
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Any:
        while not self._messages:
            self._waiter = get_running_loop().create_future()
            await self._waiter
        self._waiter = None
        return self._messages.pop(0)

    def empty(self) -> bool:
        return not self._messages


class _Gate:
    """asyncio.Event in a tenth of its memory; it begins set."""

    __slots__ = ("_closed",)

    def __init__(self) -> None:
        self._closed: Future[None] | None = None

    def is_set(self) -> bool:
        return self._closed is None

    def set(self) -> None:
        closed, self._closed = self._closed, None
        if closed and not closed.done():
            closed.set_result(None)

    def clear(self) -> None:
        if self._closed is None:
            self._closed = get_running_loop().create_future()

    async def wait(self) -> None:
        while self._closed is not None:
            await shield(self._closed)


class Protocol(WebSocketsSansIOProtocol):
    """Takes made frames, closes sockets one by one at shutdown, drops stalled peers, and limits pings."""

    startup: ClassVar[float] = 1.0
    """Seconds that this process took to serve, and the next one will."""
    _opened: ClassVar[int] = 0
    _waiting: ClassVar[deque["Protocol"]] = deque()
    _early = b""
    _refused = False
    on_writable: Callable[[], None] | None = None
    """Called when `can_write` has become true again."""

    @property
    def can_write(self) -> bool:
        """Whether frames can be written now: the peer has not closed, and took what was written before."""
        return self.writable.is_set() and not self.close_sent and not self.transport.is_closing()

    def write(self, frames: bytes) -> None:
        """Send whole frames that were made outside; many sockets are sent the same bytes."""
        self.transport.write(frames)

    def resume_writing(self) -> None:
        """Also report it."""
        super().resume_writing()
        if self.on_writable:
            self.on_writable()

    def handle_parser_exception(self) -> None:
        """Close with the code, and take what is still being sent: closed at once, the code would be lost."""
        sent = self.conn.close_sent
        assert sent is not None
        self.queue.put_nowait({"type": "websocket.disconnect", "code": sent.code, "reason": sent.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._refused = True
        self.close_timer = self.loop.call_later(LINGER, self.transport.close)
        self._end_soon()

    def data_received(self, data: bytes) -> None:
        """Also let handshakes wait in line: a thousand at once would keep everybody else waiting."""
        if self._refused:
            return
        if self.handshake_initiated:
            super().data_received(data)
            return
        if not self._early:
            self.transport.pause_reading()
            self._waiting.append(self)
            if len(self._waiting) == 1:
                self.loop.call_soon(self._shake_hands)
        self._early += data

    @classmethod
    def _shake_hands(cls) -> None:
        try:
            for _ in range(min(HANDSHAKES_AT_ONCE, len(cls._waiting))):
                protocol = cls._waiting.popleft()
                data, protocol._early = protocol._early, b""
                if not protocol.disconnected and not protocol.transport.is_closing():
                    protocol.transport.resume_reading()
                    super(Protocol, protocol).data_received(data)
        finally:
            if cls._waiting:
                cls._waiting[0].loop.call_soon(cls._shake_hands)

    def handle_connect(self, event: Request) -> None:
        """Also show the application the way to `write`."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[FRAME_WRITER] = self
            Protocol._opened += 1
            if Protocol._opened % FROZEN_AT_ONCE == 0:
                self._freeze()

    def _freeze(self) -> None:
        """Keep the garbage collector from looking at every open socket: with 10,000 it takes half a second.

        What is frozen is freed when nothing refers to it, but not its cycles: quiet times are for these.
        """
        if len(self.connections) <= FROZEN_AT_ONCE:
            gc.unfreeze()
        gc.collect()
        gc.freeze()

    _end: TimerHandle | None = None

    def _end_soon(self) -> None:
        """Bound the time that a closed transport waits for its reader; by itself it waits forever."""
        if not self.disconnected and self._end is None:
            self._end = self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    def on_task_complete(self, task: Task[None]) -> None:
        """Also let the peer go, which nothing serves any more, and break the cycle with the scope."""
        super().on_task_complete(task)
        self.scope.clear()  # type: ignore[attr-defined]
        self._end_soon()

    def keepalive_timeout(self) -> None:
        """Also let a peer go that took no ping, so nothing else either; its reader need not have ended."""
        super().keepalive_timeout()
        self._end_soon()

    def handle_close(self, event: Frame) -> None:
        """Also let a peer go that says good-bye and does not read the answer."""
        super().handle_close(event)
        self._end_soon()

    def connection_made(self, transport: BaseTransport) -> None:
        """Also count what the peer sends."""
        super().connection_made(transport)
        self.queue = _Inbox()  # type: ignore[assignment]
        self.writable = _Gate()  # type: ignore[assignment]
        self._rate = Rate()

    def connection_lost(self, exc: Exception | None) -> None:
        """Also let go of the timer, and break the parser's cycle."""
        super().connection_lost(exc)
        self.conn.parser.close()
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def start_keepalive(self) -> None:
        """Also let go of the handshake, a fifth of what a waiting socket holds; nothing reads it any more."""
        super().start_keepalive()
        self.request.headers.clear()  # the parser holds it, too
        cast("list[Any]", self.scope["headers"]).clear()
        del self.request, self.response

    def shutdown(self) -> None:
        """Close with 1012 at a random moment of the spread. Events flow until then; uvicorn waits for all."""
        sockets = len(self.connections)
        spread = min(SHUTDOWN_SPREAD, sockets / SHUTDOWN_RATE)
        back = (
            self.loop.time()
            + spread
            + STARTUP_MARGIN * self.startup
            + random.uniform(0, sockets / RETURN_RATE)
        )
        self.loop.call_later(random.uniform(0, spread), self._shutdown_now, back)

    def _shutdown_now(self, back: float) -> None:
        if self.transport.is_closing():
            return
        if self.handshake_complete and not self.close_sent:
            # uvicorn gives no reason, so it finds the closing begun.
            self.queue.put_nowait({"type": "websocket.disconnect", "code": RESTART})
            self.conn.send_close(RESTART, retry_in("the server restarts", back - self.loop.time()))
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
        super().shutdown()

    def send_receive_event_to_app(self) -> None:
        """Also bear text that is no UTF-8 from a peer that is being closed: it can't be told again."""
        with suppress(InvalidState):
            super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer, but not a flood: pongs would be queued without regard to a peer that reads none."""
        if self.close_sent:
            self.conn.data_to_send()
        elif self._rate.allow():
            super().handle_ping()
        else:
            self.conn.data_to_send()
            self.conn.send_close(FLOOD, FLOOD_REASON)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.queue.put_nowait({"type": "websocket.disconnect", "code": FLOOD, "reason": FLOOD_REASON})
            self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)
