"""One hub per process: a single subscription serves all sockets, and the streams fill what it missed.

The published message is the fast way; the stream is the truth. A room (one user) knows the last event that it
handed out. A room is made stale by an event that names another predecessor, a new subscription, a lost Redis
connection or a client with a last id; `_settle` then reads the stream and leaves everybody in the room at the
same event. What the stream can't give whole is replaced by a snapshot.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from starlette.websockets import WebSocketDisconnect

from app.batches import SNAPSHOT, listing_key, snapshot_from
from app.events import (
    HISTORY,
    NO_EVENT,
    Event,
    channel,
    dump,
    from_message,
    position,
    range_after,
    stream,
    whole_after,
)

QUEUE_LIMIT = 2 * HISTORY  # messages waiting for one socket: a whole replay and as many live ones
ROOMS_AT_ONCE = 64  # rooms read in one transaction: bounds what one answer of Redis holds in memory
SILENCE = 10.0  # seconds without a word from Redis before it is asked for one
RETRY_MAX = 1.0  # seconds between attempts to reach Redis

logger = logging.getLogger(__name__)


class Unavailable(Exception):
    """Redis can't be reached, so no event could be delivered."""


class Listener:
    """One socket's bounded queue. It exists, with a task, only while something waits to be sent."""

    __slots__ = (
        "_queue",
        "_send",
        "_writer",
        "last_event_id",
        "on_overflow",
        "overflowed",
        "started",
        "user_id",
    )

    def __init__(self, user_id: str, last_event_id: str | None) -> None:
        self.user_id = user_id
        self.last_event_id = last_event_id
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.overflowed = False
        self.on_overflow: Callable[[], None] | None = None
        self._queue: deque[Event] | None = None
        self._send: Callable[[str], Awaitable[None]] | None = None
        self._writer: asyncio.Task[None] | None = None

    def open(self, send: Callable[[str], Awaitable[None]]) -> None:
        """Begin to send what is queued, and what will be."""
        self._send = send
        self._write()

    def push(self, *events: Event) -> None:
        """Queue events; when the reader is too slow for them, drop all and report the overflow."""
        if self.overflowed:
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.extend(events)
        if len(self._queue) > QUEUE_LIMIT:
            self.overflowed = True
            self.close()
            if self.on_overflow:
                self.on_overflow()
        else:
            self._write()

    def replace(self, event: Event) -> None:
        """Queue an event that makes all earlier ones meaningless."""
        self._queue = None
        self.push(event)

    def close(self) -> None:
        """Send nothing more and let go of everything queued."""
        self._queue = None
        self._send = None
        if self._writer:
            self._writer.cancel()

    def _write(self) -> None:
        if self._writer is None and self._send is not None and self._queue:
            self._writer = asyncio.create_task(self._drain(self._send))

    async def _drain(self, send: Callable[[str], Awaitable[None]]) -> None:
        try:
            while self._queue:
                event = self._queue.popleft()
                await send(event.text)
                if event.id:
                    logger.debug("Forwarded %s event to WebSocket", event.type)
        except (WebSocketDisconnect, RuntimeError):
            pass  # gone or closing; whoever receives from the socket learns of it
        finally:
            self._queue = None
            self._writer = None


class _Room:
    """All listeners of one user in this process."""

    __slots__ = ("last", "listeners", "newest", "stale", "starting", "user_id")

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.last: str | None = None  # id of the event handed out last; None before the first look
        self.newest: str | None = None  # id of an event seen while stale
        self.stale = False
        self.listeners: set[Listener] = set()
        self.starting: set[Listener] = set()

    def deliver(self, events: Iterable[Event]) -> None:
        for listener in self.listeners:
            listener.push(*events)


class Hub:
    """Hands each user's events to that user's sockets. `run` must be running.

    `subscriber` and `commands` are clients of one Redis, both decoding; a connection of each is used.
    `subscriber` must not retry by itself: it would hide a cut.
    """

    def __init__(self, subscriber: "Redis", commands: "Redis") -> None:
        self._subscriber = subscriber
        self._commands = commands
        self._snapshot = commands.register_script(SNAPSHOT)
        self._rooms: dict[str, _Room] = {}
        self._changed: dict[
            str, None
        ] = {}  # users whose room came, went or is stale; a dict keeps their order
        self._wake = asyncio.Event()
        self._subscribed: set[str] = set()
        self._confirmed: dict[str, asyncio.Future[None]] = {}
        self.connected = False

    async def join(self, user_id: str, last_event_id: str | None, patience: float) -> Listener:
        """Return a listener that gets all events after `last_event_id`, or from now on when that is None.

        Raises Unavailable when Redis does not answer within `patience` seconds.
        """
        room = self._rooms.setdefault(user_id, _Room(user_id))
        listener = Listener(user_id, last_event_id)
        if last_event_id is None and room.last is not None and not room.stale:
            room.listeners.add(listener)
            return listener
        room.starting.add(listener)
        self._touch(room)
        try:
            async with asyncio.timeout(patience):
                await listener.started
        except TimeoutError:
            raise Unavailable from None
        finally:
            if not listener.started.done() or listener.started.cancelled():
                self.leave(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """Forget a listener at once."""
        listener.close()
        room = self._rooms.get(listener.user_id)
        if room is None:
            return
        room.listeners.discard(listener)
        room.starting.discard(listener)
        if not room.listeners and not room.starting:
            del self._rooms[listener.user_id]
            self._changed[listener.user_id] = None
            self._wake.set()

    async def run(self) -> None:
        """Serve until cancelled, through any number of lost Redis connections."""
        clock = asyncio.get_running_loop().time
        delay = 0.0
        while True:
            begun = clock()
            try:
                async with self._subscriber.pubsub() as pubsub:
                    await pubsub.connect()
                    self._subscribed.clear()
                    self._confirmed.clear()
                    for room in self._rooms.values():
                        self._touch(room)
                    self.connected = True
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._read(pubsub))
                        group.create_task(self._manage(pubsub))
            except* (RedisError, OSError) as errors:
                logger.warning("Lost Redis, trying again: %s", errors.exceptions[0])
            except* Exception:
                logger.exception("The hub failed and starts again")
            finally:
                self.connected = False
            # At once after a connection that had lasted; ever slower while none does.
            delay = 0.0 if clock() - begun > RETRY_MAX else min(2 * delay + 0.05, RETRY_MAX)
            await asyncio.sleep(delay)

    def _touch(self, room: _Room) -> None:
        room.stale = True
        self._changed[room.user_id] = None
        self._wake.set()

    async def _read(self, pubsub: "PubSub") -> None:
        asked = False
        while True:
            message = await pubsub.get_message(timeout=SILENCE)
            if message is None:
                # A cut that no packet tells of would else look like a quiet evening.
                if asked:
                    raise RedisConnectionError(f"Redis said nothing for {2 * SILENCE:g} s")
                asked = True
                await pubsub.ping()
                continue
            asked = False
            if message["type"] == "message":
                self._receive(message["channel"], message["data"])
            elif message["type"] == "subscribe":
                confirmed = self._confirmed.pop(message["channel"], None)
                if confirmed and not confirmed.done():
                    confirmed.set_result(None)

    def _receive(self, name: str, payload: str) -> None:
        room = self._rooms.get(name.removeprefix("user:").removesuffix(":events"))
        if room is None:
            return
        try:
            event = from_message(payload)
        except ValueError as error:
            logger.warning("Ignored a message on %s that is no event: %s", name, error)
            return
        if room.stale or room.last is None:
            room.newest = event.id
        elif event.previous == room.last:
            room.last = event.id
            room.deliver((event,))
        elif position(event.id) > position(room.last):
            room.newest = event.id
            self._touch(room)

    async def _manage(self, pubsub: "PubSub") -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            changed, self._changed = self._changed, {}
            gone = [user for user in changed if user in self._subscribed and user not in self._rooms]
            if gone:
                await pubsub.unsubscribe(*map(channel, gone))
                self._subscribed.difference_update(gone)
            new = [user for user in changed if user in self._rooms and user not in self._subscribed]
            if new:
                # The last confirmation follows all others.
                confirmed = asyncio.get_running_loop().create_future()
                self._confirmed[channel(new[-1])] = confirmed
                await pubsub.subscribe(*map(channel, new))
                await confirmed
                self._subscribed.update(new)
            rooms = [self._rooms[user] for user in changed if user in self._rooms]
            for i in range(0, len(rooms), ROOMS_AT_ONCE):
                lost = await self._settle(rooms[i : i + ROOMS_AT_ONCE], snapshots=False)
                for room in lost:
                    await self._settle([room], snapshots=True)

    async def _settle(self, rooms: list[_Room], *, snapshots: bool) -> list[_Room]:
        """Bring all rooms up to their streams; return those that need snapshots to get there.

        One transaction reads what the room missed and what each starting listener missed, so all end at the
        same event.
        """
        asked = [(room, tuple(room.starting), room.last) for room in rooms]
        async with self._commands.pipeline(transaction=True) as pipe:
            for room, starting, last in asked:
                room.newest = None
                if last is None:
                    pipe.execute_command("XREVRANGE", stream(room.user_id), "+", "-", "COUNT", "1")
                else:
                    pipe.execute_command(*range_after(room.user_id, last))
                for listener in starting:
                    if listener.last_event_id is not None:
                        pipe.execute_command(*range_after(room.user_id, listener.last_event_id))
                if snapshots:
                    await self._snapshot(keys=[stream(room.user_id), listing_key(room.user_id)], client=pipe)
            answers = iter(await pipe.execute())

        lost = []
        for room, starting, last in asked:
            first = next(answers)
            missed = [] if last is None else whole_after(last, first)
            replays = {
                listener: whole_after(listener.last_event_id, next(answers))
                for listener in starting
                if listener.last_event_id is not None
            }
            snapshot: dict[str, Any] = snapshot_from(next(answers)) if snapshots else {}
            if not snapshots and (missed is None or None in replays.values()):
                lost.append(room)
                continue
            resync = Event("", "", "resync", dump({"type": "resync", "snapshot": snapshot}))
            if missed is None:
                room.last = snapshot["last_event_id"]
                for listener in room.listeners:
                    listener.replace(resync)
            elif last is None:
                room.last = first[0][0] if first else NO_EVENT
            elif missed:
                room.last = missed[-1].id
                room.deliver(missed)
            for listener in room.starting.intersection(starting):
                replay = replays.get(listener, [])
                listener.push(*([resync] if replay is None else replay))
                room.starting.discard(listener)
                room.listeners.add(listener)
                if not listener.started.done():
                    listener.started.set_result(None)
            assert room.last is not None
            room.stale = False
            if room.starting or (room.newest and position(room.newest) > position(room.last)):
                self._touch(room)
        return lost
