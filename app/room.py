"""A room (one user) and its listeners (one per socket): the state that reading and writing share."""

import asyncio
import logging
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from app.events import newer, type_of
from app.window import Window

logger = logging.getLogger(__name__)


class End(Enum):
    """Why the hub ends a listener."""

    TOO_SLOW = auto()
    UNAVAILABLE = auto()


class FrameWriter(Protocol):
    """The connection to one client, as far as a listener needs it."""

    on_writable: Callable[[], None] | None
    """Called when `can_write` becomes true again."""

    @property
    def can_write(self) -> bool:
        """Whether the client accepts more data now."""

    def write(self, frames: bytes) -> None:
        """Send complete frames."""


class Scheduler(Protocol):
    """The part of app.fanout's Fanout that a listener uses."""

    def write_soon(self, listener: "Listener") -> None:
        """Flush a listener again after other listeners had their turn."""

    def caught_up(self, listener: "Listener") -> None:
        """Note that a listener has been sent everything, or has left."""


class Listener:
    """One socket's position in its room: a cursor, and the frames that are for this socket alone."""

    __slots__ = (
        "_control", "_resync", "_scheduler", "_writer", "cursor", "end", "on_end", "ready", "room", "since",
        "wanted",
    )  # fmt: skip

    def __init__(self, scheduler: Scheduler, room: "Room", wanted: str | None, now: float) -> None:
        self.room = room
        self.wanted = wanted  # id of the last event that the client has seen
        self.since = now  # loop time in seconds
        self.cursor: int | None = None  # None until its position in the window is known
        self.end: End | None = None  # why the hub ended this listener
        self.on_end: Callable[[], None] | None = None  # called once the hub has set `end`
        self.ready: asyncio.Future[None] | None = None
        self._scheduler = scheduler
        self._resync: bytes | None = None
        self._control: tuple[bytes, ...] = ()  # pongs and heartbeats
        self._writer: FrameWriter | None = None

    async def start(self) -> None:
        """Wait until every event published from now on will be delivered, or until `end` is set."""
        if self.cursor is None and self.end is None:
            self.ready = asyncio.get_running_loop().create_future()
            await self.ready

    def open(self, writer: FrameWriter) -> None:
        """Begin to send."""
        self._writer = writer
        writer.on_writable = self.flush
        self.flush()

    def push(self, message: bytes) -> None:
        """Send a control frame. A frame equal to one that is still queued is dropped."""
        if message not in self._control:
            self._control += (message,)
            self.flush()

    def restart(self, resync: bytes) -> None:
        """Queue a resync frame, which replaces an earlier one. Control frames stay queued."""
        self._resync = resync

    def flush(self) -> None:
        """Send one piece of what is queued, if the client accepts it, and schedule the next piece."""
        writer = self._writer
        if writer is None:
            return
        window = self.room.window
        if (self._resync or self._control) and writer.can_write:
            data = (self._resync or b"") + b"".join(self._control)
            self._resync, self._control = None, ()
            writer.write(data)
        if self.cursor is None or window is None:
            return
        if self.cursor < window.end and writer.can_write:
            data, end = window.piece(self.cursor)
            if logger.isEnabledFor(logging.DEBUG):
                for sent in window.frames(self.cursor, end):
                    logger.debug("Forwarded %s event to WebSocket", type_of(sent))
            self.cursor = end
            writer.write(data)
        if self.cursor == window.end and not self._resync and not self._control:
            self._scheduler.caught_up(self)
            return
        self.room.lagging.add(self)
        if writer.can_write:
            self._scheduler.write_soon(self)

    def close(self, end: End | None = None) -> None:
        """Stop sending. With `end`, also notify the connection's handler through `on_end`."""
        if self._writer is not None:
            self._writer.on_writable = None
            self._writer = None
        self._resync, self._control = None, ()
        if end is not None and self.end is None:
            self.end = end
            if self.on_end:
                self.on_end()
        self.wake()

    def wake(self) -> None:
        """Let `start` return."""
        if self.ready and not self.ready.done():
            self.ready.set_result(None)


class Room:
    """All listeners of one user in this process."""

    __slots__ = (
        "closed", "dirty", "extend_to", "kept_bytes", "lagging", "listeners", "needs_reset", "needs_snapshot",
        "newest_seen", "queued", "resync", "rewrite", "searched_to", "stale", "starting", "user_id", "window",
    )  # fmt: skip

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.window: Window | None = None  # None before the first read
        self.newest_seen: str | None = None  # newest id published before the first read or during a reset
        self.stale = True  # the stream may have events after the window
        self.needs_reset = False  # the events after the window's last can't be read: it has to be rebuilt
        self.extend_to: str | None = None  # oldest event before the window that a starting listener wants
        self.searched_to: tuple[int, int] | None = None  # the stream has nothing from here to the window
        self.needs_snapshot = False  # a starting listener can't resume and needs a new snapshot
        self.resync: tuple[str, bytes] | None = None  # the last snapshot's event id, and its frame
        self.listeners: set[Listener] = set()
        self.starting: dict[Listener, None] = {}  # listeners without a cursor, oldest first
        self.lagging: set[Listener] = set()  # listeners whose client has not accepted everything yet
        self.queued = False  # waits for the stream reader
        self.dirty = False  # is being written to its listeners, or waits for that
        self.rewrite = False  # has to be written again after that, as its window grew
        self.kept_bytes = 0  # size of the window and the snapshot that are kept for the next listener
        self.closed = False  # the last listener has left

    def saw_newer_than(self, event_id: str) -> bool:
        """Whether an event newer than `event_id` was published before the first read, or during a reset."""
        return self.newest_seen is not None and newer(self.newest_seen, event_id)

    def reset(self, last: str) -> None:
        """Begin a new window after `last`, and place all listeners there."""
        self.window = Window(last, self.window.end if self.window else 0)
        self.needs_reset = False
        self.searched_to = None
        self.lagging.clear()
        for listener in self.listeners:
            listener.cursor = self.window.end
