"""One hub per process: a single subscription serves all sockets, and the streams provide what it missed.

The published message is the fast path; the stream is authoritative. A room (one user) has a window: the
newest stretch of the user's stream, without a gap, as frames. Every socket has a cursor into it, so an event
is read and framed once however many sockets there are, and a slow socket costs no copy. A window grows

- at its end by a published event that names the last one as its predecessor, or, when a message was missed
  (another predecessor, a new subscription, a lost connection), by a page of the stream;
- at its beginning by pages of the stream, for sockets that resume from an event before it.

Rooms wait in one queue for their next page, so a user with a long backlog delays no other, and a socket waits
as long as the queue moves. What the stream can't provide without a gap, or not in time, is replaced by a
snapshot, which all sockets of the room share.

`app.room` has the state, `app.stream_reader` reads pages and snapshots, `app.fanout` writes to the sockets.
"""

import asyncio
import logging
from itertools import islice

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from app.events import channel, from_message, newer
from app.fanout import Fanout
from app.room import End, Listener, Room
from app.stream_reader import ROOMS_PER_ROUND, StreamReader

CHANNELS_PER_COMMAND = 256  # channels in one SUBSCRIBE or UNSUBSCRIBE
MESSAGES_PER_STEP = 64  # published messages processed before the event loop runs other tasks
REDIS_TIMEOUT = 5.0  # seconds without an answer from Redis after which waiting sockets are refused
OUTAGE_TIMEOUT = 2.0  # the same without a connection to Redis: probes wait five seconds for an answer
PING_AFTER = 10.0  # seconds without a message until Redis is pinged, and then until the connection ends
RETRY_MAX = 1.0  # seconds between attempts to reach Redis

logger = logging.getLogger(__name__)


class Hub:
    """Delivers each user's events to that user's sockets. `run` must be running.

    `subscriber` and `commands` are clients of one Redis, both decoding; one connection of each is used.
    `subscriber` must not retry by itself: it would hide a lost connection.
    """

    def __init__(self, subscriber: "Redis", commands: "Redis") -> None:
        self._subscriber = subscriber
        self._fanout = Fanout()
        self._reader = StreamReader(commands, self._fanout)
        self._rooms: dict[str, Room] = {}
        self._left: dict[str, None] = {}  # users whose room was closed
        self._subscribed: set[str] = set()
        self._confirmations: dict[str, asyncio.Future[None]] = {}  # by channel
        self.connected = False

    def sockets(self, user_id: str) -> int:
        """Return how many listeners a user has here."""
        room = self._rooms.get(user_id)
        return len(room.listeners) + len(room.starting) if room else 0

    def join(self, user_id: str, last_event_id: str | None) -> Listener:
        """Return a listener that gets all events after `last_event_id`, or from now on when that is None."""
        loop = asyncio.get_running_loop()
        room = self._rooms.get(user_id)
        if room is None:
            room = self._rooms[user_id] = Room(user_id)
        listener = Listener(self._fanout, room, last_event_id, loop.time())
        room.starting[listener] = None
        if room.window is not None and last_event_id is not None:
            # The client may know of an event whose message has not arrived here yet.
            room.stale |= newer(last_event_id, room.window.last)
        if len(room.starting) == 1:
            self._reader.place(room)
        else:
            self._reader.enqueue(room)  # its turn places all of them
        if listener.cursor is None:
            loop.call_later(self._timeout(), self._check, listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """Remove a listener."""
        listener.close()
        room = listener.room
        room.listeners.discard(listener)
        room.starting.pop(listener, None)
        if listener in room.lagging:
            self._fanout.caught_up(listener)
        if not room.listeners and not room.starting and not room.closed:
            room.closed = True
            self._fanout.release(room)
            del self._rooms[room.user_id]
            self._left[room.user_id] = None
            self._reader.wake.set()

    async def run(self) -> None:
        """Serve until cancelled, through any number of lost Redis connections."""
        writing = asyncio.create_task(self._fanout.run())
        try:
            await self._serve()
        finally:
            writing.cancel()

    async def _serve(self) -> None:
        clock = asyncio.get_running_loop().time
        delay = 0.0
        while True:
            begun = clock()
            try:
                async with self._subscriber.pubsub() as pubsub:
                    await pubsub.connect()
                    self._subscribed.clear()
                    self._confirmations.clear()
                    self._reader.restart(self._rooms.values())
                    self.connected = True
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._receive_all(pubsub))
                        group.create_task(self._subscribe_and_read(pubsub))
            except* (RedisError, OSError) as errors:
                logger.warning("Lost Redis, trying again: %s", errors.exceptions[0])
            except* Exception:
                logger.exception("The hub failed; restarting it")
            finally:
                self.connected = False
            # At once after a connection that lasted; more slowly with each attempt that fails.
            delay = 0.0 if clock() - begun > RETRY_MAX else min(2 * delay + 0.05, RETRY_MAX)
            await asyncio.sleep(delay)

    def _check(self, listener: Listener) -> None:
        """Refuse a listener that has waited too long for an answer from Redis."""
        if listener.cursor is not None or listener.end is not None or listener.room.closed:
            return
        loop = asyncio.get_running_loop()
        waited, timeout = loop.time() - max(listener.since, self._reader.answered_at), self._timeout()
        if waited >= timeout:
            listener.close(End.UNAVAILABLE)
        else:
            loop.call_later(timeout - waited, self._check, listener)

    def _timeout(self) -> float:
        return REDIS_TIMEOUT if self.connected else OUTAGE_TIMEOUT

    async def _receive_all(self, pubsub: "PubSub") -> None:
        """Process published messages until the connection fails, which raises RedisConnectionError."""
        pinged = False
        processed = 0
        while True:
            message = await pubsub.get_message(timeout=PING_AFTER)
            if message is None:
                # Without a ping, a silently dropped connection looks like an idle one.
                if pinged:
                    raise RedisConnectionError(f"no answer from Redis for {2 * PING_AFTER:g} s")
                pinged = True
                await pubsub.ping()
                continue
            pinged = False
            if message["type"] == "message":
                self._receive(message["channel"], message["data"])
            elif message["type"] == "subscribe":
                confirmation = self._confirmations.pop(message["channel"], None)
                if confirmation and not confirmation.done():
                    confirmation.set_result(None)
            processed += 1
            if processed % MESSAGES_PER_STEP == 0:
                # get_message does not yield while it has messages in its buffer.
                await asyncio.sleep(0)

    def _receive(self, name: str, payload: str) -> None:
        room = self._rooms.get(name.removeprefix("user:").removesuffix(":events"))
        if room is None:
            return
        try:
            event = from_message(payload)
        except ValueError as error:
            logger.warning("Ignored a message on %s that is not a valid event: %s", name, error)
            # The stream may have what the message does not contain.
            room.stale = True
            self._reader.enqueue(room)
            return
        if room.window is None or room.needs_reset:
            room.newest_seen = event.id
        elif room.window.append(event):
            self._fanout.mark(room)
        elif newer(event.id, room.window.last):
            room.stale = True
            self._reader.enqueue(room)

    async def _subscribe_and_read(self, pubsub: "PubSub") -> None:
        task = asyncio.current_task()
        # A cancellation was seen to be lost in the client library (redis-py 8.1.0, Python 3.11).
        while task and not task.cancelling():
            await self._reader.wake.wait()
            self._reader.wake.clear()
            while self._left or self._reader.waiting:
                left, self._left = self._left, {}
                closed = [user for user in left if user in self._subscribed and user not in self._rooms]
                for i in range(0, len(closed), CHANNELS_PER_COMMAND):
                    await pubsub.unsubscribe(*map(channel, closed[i : i + CHANNELS_PER_COMMAND]))
                self._subscribed.difference_update(closed)
                await self._subscribe(pubsub)
                await self._reader.read(self._subscribed)
                await asyncio.sleep(0)

    async def _subscribe(self, pubsub: "PubSub") -> None:
        """Subscribe to the channels of the rooms that are next, before any of their streams is read."""
        rooms = [room for room in islice(self._reader.waiting, CHANNELS_PER_COMMAND) if not room.closed]
        users = [room.user_id for room in rooms if room.user_id not in self._subscribed]
        if users and not self._subscribed.issuperset(room.user_id for room in rooms[:ROOMS_PER_ROUND]):
            # The last confirmation follows all others.
            confirmation = asyncio.get_running_loop().create_future()
            self._confirmations[channel(users[-1])] = confirmation
            await pubsub.subscribe(*map(channel, users))
            await confirmation
            self._subscribed.update(users)
