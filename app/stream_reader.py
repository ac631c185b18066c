"""Reads the rooms' streams, many rooms in one round trip, and places the listeners that wait for it.

Each round has three steps: choose a query for each room (`_next_query`), send all and parse the replies into
typed results (`_fetch`), apply these to the rooms (`_apply`). Only the second one waits for Redis.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from app.batches import SNAPSHOT, listing_key, snapshot_text
from app.events import HISTORY, NO_EVENT, Event, frame, from_entry, newer, position, stream
from app.fanout import Fanout
from app.room import End, Listener, Room
from app.window import Window

PAGE = 128  # entries read of one stream at a time for sockets that resume
NEWS = 16  # entries read of one stream after a missed message: most often there is none, or one
ENTRIES_PER_ROUND = 768  # of all rooms: what the event loop can parse in one step
ROOMS_PER_ROUND = 64
REPLAY_SECONDS = 10.0  # after which a socket gets a snapshot instead of more pages
UNREACHABLE = (-1, -1)  # as `Room.searched_to`: the stream has a gap right before the window

logger = logging.getLogger(__name__)


class _Kind(Enum):
    FIRST = auto()  # the stream's end, back to what a starting listener wants
    FORWARD = auto()  # what follows the window
    BACKWARD = auto()  # what precedes it
    SNAPSHOT = auto()


@dataclass(frozen=True, slots=True)
class _Query:
    """One room's part of a round: a Redis command, unless it is for a snapshot."""

    kind: _Kind
    command: tuple[str, ...] = ()
    begin: str | None = None  # the event that the reply has to begin with
    until: str | None = None  # the oldest event that it is for
    limit: int = 1  # entries at most


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The user's state: the id of the newest event that it includes, and the resync frame."""

    last: str
    frame: bytes


@dataclass(frozen=True, slots=True)
class _Reply:
    """What a query returned: events in the order of the command, a snapshot, or why there is neither."""

    room: Room
    query: _Query
    result: list[Event] | _Snapshot | Exception


def _unchanged(response: Any, **_: Any) -> Any:
    return response


class StreamReader:
    """The rooms that wait for a read. `commands` is a decoding client, of which one connection is used."""

    def __init__(self, commands: "Redis", fanout: Fanout) -> None:
        self._commands = Redis(connection_pool=commands.connection_pool)
        # Turning each entry into a dict would cost as much as parsing it.
        for name in ("XRANGE", "XREVRANGE"):
            self._commands.set_response_callback(name, _unchanged)
        self._snapshot = self._commands.register_script(SNAPSHOT)
        self._fanout = fanout
        self.wake = asyncio.Event()
        """Set when `waiting` grows."""
        self.waiting: deque[Room] = deque()
        self.answered_at = 0.0
        """Loop time, in seconds, of the last answer."""

    def enqueue(self, room: Room) -> None:
        """Have a room read in its turn."""
        if not room.queued and not room.closed:
            room.queued = True
            self.waiting.append(room)
            self.wake.set()

    def restart(self, rooms: Collection[Room]) -> None:
        """Have all rooms read again: the subscription was interrupted."""
        self.waiting.clear()
        for room in rooms:
            room.queued = False
            room.stale = True
            self.enqueue(room)

    async def read(self, subscribed: Collection[str]) -> None:
        """Read one page for each room of the next round, which ends at the first not in `subscribed`.

        A room that can't be read has its listeners ended as UNAVAILABLE. Raises RedisError or OSError when
        the connection fails.
        """
        queries = self._next_queries(subscribed)
        if queries:
            for reply in await self._fetch(queries):
                self._apply(reply)

    def _next_queries(self, subscribed: Collection[str]) -> list[tuple[Room, _Query]]:
        queries: list[tuple[Room, _Query]] = []
        entries = 0
        while self.waiting and len(queries) < ROOMS_PER_ROUND and entries < ENTRIES_PER_ROUND:
            room = self.waiting[0]
            if not room.closed and room.user_id not in subscribed:
                break  # it was added while the others were subscribed to
            self.waiting.popleft()
            room.queued = False
            if room.closed:
                continue
            query = self._next_query(room)
            if query is None:
                self.place(room)
                continue
            queries.append((room, query))
            entries += query.limit
        return queries

    @staticmethod
    def _next_query(room: Room) -> _Query | None:
        """Return what a room needs next, or None."""
        key, window = stream(room.user_id), room.window
        if room.needs_reset or room.needs_snapshot:
            return _Query(_Kind.SNAPSHOT, limit=PAGE)
        if window is None:
            room.stale = False
            wanted = [listener.wanted for listener in room.starting if listener.wanted is not None]
            if not wanted:
                return _Query(_Kind.FIRST, ("XREVRANGE", key, "+", "-", "COUNT", "1"))
            oldest = min(wanted, key=position)
            command = ("XREVRANGE", key, "+", oldest, "COUNT", str(PAGE))
            return _Query(_Kind.FIRST, command, until=oldest, limit=PAGE)
        if room.stale:
            # An event that makes it stale from now on may be later than the answer.
            room.stale = False
            command = ("XRANGE", key, window.last, "+", "COUNT", str(NEWS))
            return _Query(_Kind.FORWARD, command, begin=window.last, limit=NEWS)
        if room.extend_to is not None:
            count = max(1, min(PAGE, HISTORY - len(window)))  # it may have grown since
            command = ("XREVRANGE", key, window.floor, f"({room.extend_to}", "COUNT", str(count))
            return _Query(_Kind.BACKWARD, command, begin=window.floor, until=room.extend_to, limit=count)
        return None

    async def _fetch(self, queries: list[tuple[Room, _Query]]) -> list[_Reply]:
        """Send the queries in one round trip and parse the replies, except for rooms closed since."""
        async with self._commands.pipeline(transaction=False) as pipe:
            for room, query in queries:
                if query.kind is _Kind.SNAPSHOT:
                    await self._snapshot(keys=[stream(room.user_id), listing_key(room.user_id)], client=pipe)
                else:
                    pipe.execute_command(*query.command)
            answers = await pipe.execute(raise_on_error=False)
        self.answered_at = asyncio.get_running_loop().time()
        return [
            _Reply(room, query, _parse(query, answer))
            for (room, query), answer in zip(queries, answers, strict=True)
            if not room.closed
        ]

    def _apply(self, reply: _Reply) -> None:
        """Change the room by what was read, and place its listeners. Raises a lost connection's error."""
        room, query, result = reply.room, reply.query, reply.result
        if isinstance(result, RedisConnectionError):
            raise result
        try:
            if isinstance(result, Exception):
                raise result
            if isinstance(result, _Snapshot):
                self._apply_snapshot(room, result)
            elif query.kind is _Kind.FORWARD:
                self._append(room, query, result)
            elif query.kind is _Kind.BACKWARD:
                self._prepend(room, query, result)
            else:
                self._begin(room, query, result)
            self.place(room)
        except Exception as error:
            known = isinstance(error, (ResponseError, ValueError))
            logger.error("The events of %s can't be read: %s", room.user_id, error, exc_info=not known)
            for listener in (*room.starting, *room.listeners):
                listener.close(End.UNAVAILABLE)

    def _apply_snapshot(self, room: Room, snapshot: _Snapshot) -> None:
        room.resync = snapshot.last, snapshot.frame
        room.needs_snapshot = False
        if room.needs_reset:
            room.reset(snapshot.last)
            room.stale |= room.saw_newer_than(snapshot.last)
            for listener in room.listeners:
                listener.restart(snapshot.frame)
            self._fanout.mark(room)
        elif room.window is not None and room.window.after(snapshot.last) is None:
            room.stale = True

    @staticmethod
    def _begin(room: Room, query: _Query, events: list[Event]) -> None:
        """Make the room's first window."""
        if events:
            window = Window(events[0].id)
        elif query.until in (None, NO_EVENT):
            window = Window(NO_EVENT)
        else:
            room.needs_reset = True
            return
        room.window = window
        room.stale |= room.saw_newer_than(window.last)
        if query.until is not None:
            _extend(room, window, query, events)

    def _append(self, room: Room, query: _Query, events: list[Event]) -> None:
        window = room.window
        assert window is not None
        # The event that the query begins with proves that nothing is missing after it.
        known = query.begin in ((events[0].id, events[0].previous) if events else (NO_EVENT,))
        last = window.last
        room.needs_reset = not known or not all(
            window.append(event) for event in events if newer(event.id, last)
        )
        room.stale |= len(events) == query.limit
        self._fanout.mark(room)

    @staticmethod
    def _prepend(room: Room, query: _Query, events: list[Event]) -> None:
        window = room.window
        assert window is not None
        # Otherwise the window was trimmed since the query, and the reply does not adjoin it.
        if window.floor == query.begin:
            _extend(room, window, query, events)

    def place(self, room: Room) -> None:
        """Set each starting listener's cursor if the window has its event; otherwise enqueue the room."""
        window, room.extend_to, room.needs_snapshot = room.window, None, False
        if window is not None and not room.needs_reset and room.starting:
            now = asyncio.get_running_loop().time()
            ids = {listener.wanted for listener in room.starting if listener.wanted is not None}
            cursors = {wanted: window.after(wanted) for wanted in ids}
            for listener in tuple(room.starting):
                wanted = listener.wanted
                if wanted is None:
                    if not room.stale:
                        self._start(listener, window.end)
                elif (cursor := cursors[wanted]) is not None:
                    self._start(listener, cursor)
                elif (at := position(wanted)) > position(window.last) and room.stale:
                    pass  # the next read may find it
                elif (
                    at < position(window.floor)
                    and (room.searched_to is None or at < room.searched_to)
                    and len(window) < HISTORY
                    and now - listener.since < REPLAY_SECONDS
                ):
                    if room.extend_to is None or newer(room.extend_to, wanted):
                        room.extend_to = wanted
                elif room.resync is None or (cursor := window.after(room.resync[0])) is None:
                    # The window may have to reach the last snapshot's event first.
                    room.needs_snapshot = room.resync is None or not room.stale
                else:
                    listener.restart(room.resync[1])
                    self._start(listener, cursor)
        if window is not None and not room.needs_reset and not room.starting:
            self._fanout.keep(room)
        if (
            window is None
            or room.needs_reset
            or room.stale
            or room.needs_snapshot
            or room.extend_to is not None
        ):
            self.enqueue(room)

    def _start(self, listener: Listener, cursor: int) -> None:
        room = listener.room
        listener.cursor = cursor
        del room.starting[listener]
        room.listeners.add(listener)
        # Keeps what it needs from being trimmed until it has been written.
        room.lagging.add(listener)
        self._fanout.write_soon(listener)
        listener.wake()


def _parse(query: _Query, answer: Any) -> list[Event] | _Snapshot | Exception:
    if isinstance(answer, Exception):
        return answer
    try:
        if query.kind is _Kind.SNAPSHOT:
            return _Snapshot(str(answer[0]), frame(f'{{"type":"resync","snapshot":{snapshot_text(answer)}}}'))
        return [from_entry(*entry) for entry in answer]
    except Exception as error:
        return error


def _extend(room: Room, window: Window, query: _Query, events: list[Event]) -> None:
    """Put events, the newest first, before the window, and note how far the stream has been searched."""
    if not window.prepend(events):
        room.searched_to = UNREACHABLE
    elif len(events) < query.limit:
        assert query.until is not None
        room.searched_to = position(query.until)
