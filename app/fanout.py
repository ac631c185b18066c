"""Writes each room's window to its listeners, in small steps, and drops the frames that no listener needs."""

import asyncio
import logging
from collections import deque

from app.events import HISTORY
from app.room import End, Listener, Room

QUEUE_LIMIT = 2 * HISTORY  # events that a socket may lag behind: a whole replay and as many live ones
WRITES_PER_STEP = 32  # sockets written to before the event loop runs other tasks
KEEP_SECONDS = 3.0  # how long what one socket resumed from is kept for the user's next socket
KEEP_BYTES = 8 << 20  # limit for everything that is kept

logger = logging.getLogger(__name__)


class Fanout:
    """Brings the listeners of every room up to date. `run` must be running."""

    def __init__(self) -> None:
        self._dirty: deque[Room] = deque()
        self._waiting: deque[Listener] = deque()  # listeners to be written to apart from their room
        self._wake = asyncio.Event()
        self._kept: dict[Room, None] = {}  # the oldest first
        self._kept_bytes = 0

    def mark(self, room: Room) -> None:
        """Have a room written to all its listeners: its window has grown."""
        room.rewrite = True
        if not room.dirty:
            room.dirty = True
            self._dirty.append(room)
            self._wake.set()

    async def run(self) -> None:
        """Write until cancelled: single listeners and whole rooms in turn, so neither delays the other."""
        written = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting or self._dirty:
                for _ in range(min(len(self._waiting), WRITES_PER_STEP)):
                    self._flush(self._waiting.popleft())
                await asyncio.sleep(0)
                if self._dirty:
                    room = self._dirty.popleft()
                    room.rewrite = False
                    assert room.window is not None
                    reached = room.window.end
                    for listener in tuple(room.listeners):
                        self._flush(listener)
                        written += 1
                        if written % WRITES_PER_STEP == 0:
                            await asyncio.sleep(0)
                    self._finish(room, reached)

    def _flush(self, listener: Listener) -> None:
        try:
            listener.flush()
        except Exception:
            logger.exception("Writing to a socket of %s failed", listener.room.user_id)
            listener.close(End.UNAVAILABLE)

    def _finish(self, room: Room, reached: int) -> None:
        """End the listeners that lag too far behind, and trim what all others were sent up to `reached`."""
        window = room.window
        assert window is not None
        for listener in tuple(room.lagging):
            if listener.cursor is not None and window.end - listener.cursor > QUEUE_LIMIT:
                room.lagging.discard(listener)
                room.listeners.discard(listener)
                listener.close(End.TOO_SLOW)
        room.dirty = room.rewrite
        if room.rewrite:
            self._dirty.append(room)
        # Also while it is dirty again: a busy room may always be.
        self._trim(room, reached)

    def write_soon(self, listener: Listener) -> None:
        """Flush a listener again after other listeners had their turn."""
        self._waiting.append(listener)
        self._wake.set()

    def caught_up(self, listener: Listener) -> None:
        """Note that a listener has been sent everything, or has left."""
        room = listener.room
        if listener in room.lagging:
            room.lagging.discard(listener)
            if not room.lagging:
                self._trim_all(room)

    def _trim_all(self, room: Room) -> None:
        if room.window is not None and not room.dirty:
            self._trim(room, room.window.end)

    def _trim(self, room: Room, reached: int) -> None:
        """Drop the frames before `reached` that no lagging listener needs."""
        window = room.window
        if window is None or room.starting:
            return
        needed = window.begin if room.kept_bytes else reached
        for listener in room.lagging:
            if listener.cursor is not None:
                needed = min(needed, listener.cursor)
        if needed > window.begin:
            room.searched_to = None
        window.trim(needed)

    def keep(self, room: Room) -> None:
        """Keep the window for KEEP_SECONDS: a user's sockets tend to come back together."""
        window = room.window
        size = (window.size if window else 0) + (len(room.resync[1]) if room.resync else 0)
        if room.kept_bytes or not size:
            return
        room.kept_bytes = size
        self._kept[room] = None
        self._kept_bytes += size
        asyncio.get_running_loop().call_later(KEEP_SECONDS, self.release, room)
        while self._kept_bytes > KEEP_BYTES:
            self.release(next(iter(self._kept)))

    def release(self, room: Room) -> None:
        """Stop keeping a room's window and snapshot."""
        room.resync = None
        if room in self._kept:
            del self._kept[room]
            self._kept_bytes -= room.kept_bytes
            room.kept_bytes = 0
            self._trim_all(room)
