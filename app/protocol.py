"""uvicorn's WebSocket protocol, with five things that an application can't reach."""

import random
from asyncio import BaseTransport, Task, TimerHandle
from contextlib import suppress

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame

from app.rate import FLOOD, FLOOD_REASON, Rate

SHUTDOWN_SPREAD = 3.0  # seconds at most over which sockets are closed: clients then don't come all at once
SHUTDOWN_RATE = 100  # sockets closed in a second, when that ends sooner
CLOSE_TIMEOUT = 30.0  # seconds that a peer has to take the rest once its socket is being closed


class Protocol(WebSocketsSansIOProtocol):
    """Closes sockets one by one at shutdown, drops peers that take nothing, limits pings, and is smaller."""

    _end: TimerHandle | None = None

    def _end_soon(self) -> None:
        """Bound the time that a closed transport waits for its reader; by itself it waits forever."""
        if not self.disconnected and self._end is None:
            self._end = self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    def on_task_complete(self, task: Task[None]) -> None:
        """Also let the peer go: nothing serves it any more."""
        super().on_task_complete(task)
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
        self._rate = Rate()

    def connection_lost(self, exc: Exception | None) -> None:
        """Also let go of the timer."""
        super().connection_lost(exc)
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def start_keepalive(self) -> None:
        """Also let go of the handshake, a tenth of what a waiting socket holds; nothing reads it any more."""
        super().start_keepalive()
        del self.request, self.response

    def shutdown(self) -> None:
        """Close with 1012 at a random moment of the spread. Events flow until then; uvicorn waits for all."""
        spread = min(SHUTDOWN_SPREAD, len(self.connections) / SHUTDOWN_RATE)
        self.loop.call_later(random.uniform(0, spread), self._shutdown_now)

    def _shutdown_now(self) -> None:
        if not self.transport.is_closing():
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
