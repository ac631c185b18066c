"""uvicorn's protocols, extended where an application has no access."""

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

from app.rate import FLOOD_REASON, TOO_MANY, Rate

SHUTDOWN_SPREAD = 1.0  # seconds over which sockets are closed, at most
SHUTDOWN_RATE = 100  # sockets closed in a second, if that is faster
STARTUP_MARGIN = 1.25  # start-up time of the next process, as a multiple of this one's
RESTART = 1012  # close code
RETURN_RATE = 1_000  # clients told to reconnect in each second; a process can serve more
FRAME_WRITER = "app.frame_writer"  # key of the scope's extension: the protocol, as app.room's FrameWriter
HANDSHAKES_PER_STEP = 4  # pending handshakes processed before the event loop runs other tasks
FREEZE_EVERY = 100  # new sockets after which live objects are hidden from the garbage collector
LINGER = 1.0  # seconds for which the data of a refused peer is still read
CLOSE_TIMEOUT = 30.0  # seconds that a peer may take to read the rest once its socket is being closed


def retry_in(reason: str, seconds: float) -> str:
    """Return a close reason that also tells the client when to reconnect, in milliseconds."""
    return f"{reason}; retry in {seconds * 1000:.0f} ms"


def seconds_since_start() -> float:
    """Return the seconds since this process was started."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


class HttpProtocol(HttpToolsProtocol):
    """Leaves no reference cycle behind when a connection becomes a WebSocket."""

    def handle_websocket_upgrade(self) -> None:
        """Also break the cycle with the parser, which would need the garbage collector."""
        super().handle_websocket_upgrade()
        self.parser = None  # type: ignore[assignment]


class _Inbox:
    """An asyncio.Queue for one reader, in a tenth of the memory."""

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
    """An asyncio.Event, initially set, in a tenth of the memory."""

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
    """Also writes prebuilt frames, paces the shutdown, drops stalled peers, and limits pings."""

    startup: ClassVar[float] = 1.0
    """Seconds that this process took to start, used as an estimate for the next one."""
    _opened: ClassVar[int] = 0
    _waiting: ClassVar[deque["Protocol"]] = deque()
    _early = b""
    _refused = False
    on_writable: Callable[[], None] | None = None
    """Called when `can_write` becomes true again."""

    @property
    def can_write(self) -> bool:
        """Whether frames can be written now: the connection is open and its buffer not full."""
        return self.writable.is_set() and not self.close_sent and not self.transport.is_closing()

    def write(self, frames: bytes) -> None:
        """Send complete, prebuilt frames, which many sockets may share."""
        self.transport.write(frames)

    def resume_writing(self) -> None:
        """Also call `on_writable`."""
        super().resume_writing()
        if self.on_writable:
            self.on_writable()

    def handle_parser_exception(self) -> None:
        """Send the close code, and keep reading for a while: closing at once would lose the code."""
        sent = self.conn.close_sent
        assert sent is not None
        self.queue.put_nowait({"type": "websocket.disconnect", "code": sent.code, "reason": sent.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._refused = True
        self.close_timer = self.loop.call_later(LINGER, self.transport.close)
        self._abort_later()

    def data_received(self, data: bytes) -> None:
        """Also queue handshakes: a thousand at once would block the event loop."""
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
            for _ in range(min(HANDSHAKES_PER_STEP, len(cls._waiting))):
                protocol = cls._waiting.popleft()
                data, protocol._early = protocol._early, b""
                if not protocol.disconnected and not protocol.transport.is_closing():
                    protocol.transport.resume_reading()
                    super(Protocol, protocol).data_received(data)
        finally:
            if cls._waiting:
                cls._waiting[0].loop.call_soon(cls._shake_hands)

    def handle_connect(self, event: Request) -> None:
        """Also expose this protocol to the application, which needs `write`."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[FRAME_WRITER] = self
            Protocol._opened += 1
            if Protocol._opened % FREEZE_EVERY == 0:
                self._freeze()

    def _freeze(self) -> None:
        """Hide live objects from the garbage collector, which takes half a second for 10,000 sockets.

        Frozen objects are still freed by reference count; their cycles only once few sockets are open.
        """
        if len(self.connections) <= FREEZE_EVERY:
            gc.unfreeze()
        gc.collect()
        gc.freeze()

    _abort_timer: TimerHandle | None = None

    def _abort_later(self) -> None:
        """Limit how long a closed transport waits for its peer to read; it would wait forever."""
        if not self.disconnected and self._abort_timer is None:
            self._abort_timer = self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    def on_task_complete(self, task: Task[None]) -> None:
        """Also drop the peer, which nothing serves any more, and break the cycle with the scope."""
        super().on_task_complete(task)
        self.scope.clear()  # type: ignore[attr-defined]
        self._abort_later()

    def keepalive_timeout(self) -> None:
        """Also drop the peer: one that does not read a ping reads nothing else either."""
        super().keepalive_timeout()
        self._abort_later()

    def handle_close(self, event: Frame) -> None:
        """Also drop a peer that closes and does not read the answer."""
        super().handle_close(event)
        self._abort_later()

    def connection_made(self, transport: BaseTransport) -> None:
        """Also limit the peer's messages, and save memory."""
        super().connection_made(transport)
        self.queue = _Inbox()  # type: ignore[assignment]
        self.writable = _Gate()  # type: ignore[assignment]
        self._rate = Rate()

    def connection_lost(self, exc: Exception | None) -> None:
        """Also cancel the timer, and break the parser's cycle."""
        super().connection_lost(exc)
        self.conn.parser.close()
        if self._abort_timer is not None:
            self._abort_timer.cancel()
            self._abort_timer = None

    def start_keepalive(self) -> None:
        """Also free the handshake, a fifth of an idle socket's memory; nothing reads it any more."""
        super().start_keepalive()
        self.request.headers.clear()  # the parser refers to them, too
        cast("list[Any]", self.scope["headers"]).clear()
        del self.request, self.response

    def shutdown(self) -> None:
        """Close with 1012 at a random time within the spread; events are delivered until then."""
        sockets = len(self.connections)
        spread = min(SHUTDOWN_SPREAD, sockets / SHUTDOWN_RATE)
        reconnect_at = (
            self.loop.time()
            + spread
            + STARTUP_MARGIN * self.startup
            + random.uniform(0, sockets / RETURN_RATE)
        )
        self.loop.call_later(random.uniform(0, spread), self._shutdown_now, reconnect_at)

    def _shutdown_now(self, reconnect_at: float) -> None:
        if self.transport.is_closing():
            return
        if self.handshake_complete and not self.close_sent:
            # uvicorn sends no reason, so the close frame is sent before it could.
            self.queue.put_nowait({"type": "websocket.disconnect", "code": RESTART})
            self.conn.send_close(RESTART, retry_in("the server restarts", reconnect_at - self.loop.time()))
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
        super().shutdown()

    def send_receive_event_to_app(self) -> None:
        """Ignore invalid UTF-8 once closing: a second close frame cannot be sent."""
        with suppress(InvalidState):
            super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer within the limit: pongs to a peer that does not read would accumulate."""
        if self.close_sent:
            self.conn.data_to_send()
        elif self._rate.allow():
            super().handle_ping()
        else:
            self.conn.data_to_send()
            self.conn.send_close(TOO_MANY, FLOOD_REASON)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.queue.put_nowait({"type": "websocket.disconnect", "code": TOO_MANY, "reason": FLOOD_REASON})
            self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)
