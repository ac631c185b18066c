"""One hub per process: a single subscription serves all sockets, and the streams fill what it missed.

The published message is the fast way; the stream is the truth. A room (one user) has a window: the newest
stretch of the user's stream, without a gap, as frames. Every socket has a cursor into it, so an event is read
and framed once however many sockets there are, and a slow one costs no copy. A window grows

- at its end by a published event that names the last one as its predecessor, or, when a message was missed
  (another predecessor, a new subscription, a lost connection), by a page of the stream;
- at its beginning by pages of the stream, for sockets that resume from an event before it.

Rooms wait in one line for their next page, so a user with much to read holds nobody up, and a socket waits as
long as the line moves. What the stream can't give whole, or not in time, is replaced by a snapshot, one for
all sockets of the room.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from itertools import islice
from typing import Any, NamedTuple, Protocol

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from app.batches import SNAPSHOT, listing_key, snapshot_text
from app.events import (
    HISTORY,
    NO_EVENT,
    channel,
    frame,
    from_entry,
    from_message,
    position,
    stream,
    type_of,
)
from app.window import Window

QUEUE_LIMIT = 2 * HISTORY  # events that a socket may lag behind: a whole replay and as many live ones
PAGE = 128  # entries read of one stream at a time for sockets that resume
NEWS = 16  # and after a missed message: most often there is none, or one
ENTRIES_AT_ONCE = 768  # entries asked for in one round trip, of all rooms: what the loop parses in one go
ROOMS_AT_ONCE = 64  # rooms in one round trip
CHANNELS_AT_ONCE = 256  # channels in one SUBSCRIBE
WRITES_AT_ONCE = 32  # sockets written to before others get a turn
MESSAGES_AT_ONCE = 64  # published messages taken before others get a turn
REPLAY_TIME = 10.0  # seconds after which a socket gets a snapshot instead of pages
PATIENCE = 5.0  # seconds without an answer of Redis after which waiting sockets are refused
OUTAGE_PATIENCE = 2.0  # the same without a connection to Redis: probes wait five seconds for an answer
KEEP = 3.0  # seconds that what one socket resumed from is kept for the user's next
KEEP_BYTES = 8 << 20  # of all that is kept
SILENCE = 10.0  # seconds without a word from Redis before it is asked for one
RETRY_MAX = 1.0  # seconds between attempts to reach Redis

logger = logging.getLogger(__name__)


class End(Enum):
    """Why the hub ends a listener."""

    TOO_SLOW = auto()
    UNAVAILABLE = auto()


class Outlet(Protocol):
    """Where a listener's frames go."""

    on_writable: Callable[[], None] | None
    """Called when `takes` has become true again."""

    @property
    def takes(self) -> bool:
        """Whether the peer takes more now."""

    def write(self, frames: bytes) -> None:
        """Send whole frames."""


class Listener:
    """One socket's place in its room. It holds a cursor, and only what is for this socket alone."""

    __slots__ = ("_hub", "_outlet", "_own", "cursor", "end", "on_end", "room", "since", "started", "wanted")

    def __init__(self, hub: "Hub", room: "_Room", wanted: str | None, now: float) -> None:
        self.room = room
        self.wanted = wanted  # the event that the client has seen last
        self.since = now
        self.cursor: int | None = None  # None while it waits in line
        self.end: End | None = None
        self.on_end: Callable[[], None] | None = None
        self.started: asyncio.Future[None] | None = None
        self._hub = hub
        self._own: tuple[bytes, ...] = ()
        self._outlet: Outlet | None = None

    async def start(self) -> None:
        """Wait until no event that is published from now on will be missed, or `end` says why not."""
        if self.cursor is None and self.end is None:
            self.started = asyncio.get_running_loop().create_future()
            await self.started

    def open(self, outlet: Outlet) -> None:
        """Begin to send."""
        self._outlet = outlet
        outlet.on_writable = self.flush
        self.flush()

    def push(self, message: bytes) -> None:
        """Send a frame of this socket's own. One that already waits is enough."""
        if message not in self._own:
            self._own += (message,)
            self.flush()

    def restart(self, message: bytes) -> None:
        """Send a frame that makes all earlier ones meaningless."""
        self._own = (message,)

    def flush(self) -> None:
        """Send what waits, one piece at a time, as far as the peer takes it."""
        outlet = self._outlet
        if outlet is None:
            return
        window = self.room.window
        if self._own and outlet.takes:
            data, self._own = b"".join(self._own), ()
            outlet.write(data)
        if self.cursor is None or window is None:
            return
        if self.cursor < window.end and outlet.takes:
            data, end = window.piece(self.cursor)
            if logger.isEnabledFor(logging.DEBUG):
                for sent in window.frames(self.cursor, end):
                    logger.debug("Forwarded %s event to WebSocket", type_of(sent))
            self.cursor = end
            outlet.write(data)
        if self.cursor == window.end and not self._own:
            self._hub.caught_up(self)
            return
        self.room.lagging.add(self)
        if outlet.takes:
            self._hub.write_soon(self)

    def close(self, end: End | None = None) -> None:
        """Send nothing more; tell whoever waits for it or converses with the client."""
        if self._outlet is not None:
            self._outlet.on_writable = None
            self._outlet = None
        self._own = ()
        if end is not None and self.end is None:
            self.end = end
            if self.on_end:
                self.on_end()
        self.settle()

    def settle(self) -> None:
        """Let `start` go on."""
        if self.started and not self.started.done():
            self.started.set_result(None)


class _Room:
    """All listeners of one user in this process."""

    __slots__ = (
        "again", "back", "dirty", "gone", "heard", "hopeless", "kept", "lagging", "listeners", "lost",
        "queued", "resync", "sought", "stale", "starting", "user_id", "window",
    )  # fmt: skip

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.window: Window | None = None  # None before the first look
        self.heard: str | None = None  # the newest event published before that look, or a new window
        self.stale = True  # the stream may have more than the window
        self.lost = False  # what follows the window's last event can't be had
        self.back: str | None = None  # the oldest event before the window that a starting listener wants
        self.sought: tuple[int, int] | None = None  # as far as which the stream has nothing before the window
        self.hopeless = False  # a starting listener needs a new snapshot
        self.resync: tuple[str, bytes] | None = None  # the last snapshot's event, and its frame
        self.listeners: set[Listener] = set()
        self.starting: dict[Listener, None] = {}  # listeners without a cursor
        self.lagging: set[Listener] = set()  # those whose peer did not take all yet
        self.queued = False  # in the line for a page
        self.dirty = False  # its listeners are being written to, or will be
        self.again = False  # and that must be repeated, as there is more
        self.kept = 0  # bytes of its window that are kept
        self.gone = False

    def reset(self, last: str) -> None:
        """Begin a new window after `last`, where all listeners are."""
        self.window = Window(last, self.window.end if self.window else 0)
        self.lost = False
        self.sought = None
        self.lagging.clear()
        for listener in self.listeners:
            listener.cursor = self.window.end


class _Look(Enum):
    """What a room asks the stream for."""

    FIRST = auto()  # the end of it, and what a socket wants
    FORWARD = auto()
    BACK = auto()
    SNAPSHOT = auto()


def _as_it_is(response: Any, **_: Any) -> Any:
    return response


class _Question(NamedTuple):
    look: _Look
    command: tuple[str, ...] = ()
    wanted: str | None = None  # the event from which the answer begins, or down to which it goes
    limit: int = 1  # entries at most


class Hub:
    """Hands each user's events to that user's sockets. `run` must be running.

    `subscriber` and `commands` are clients of one Redis, both decoding; a connection of each is used.
    `subscriber` must not retry by itself: it would hide a cut.
    """

    def __init__(self, subscriber: "Redis", commands: "Redis") -> None:
        self._subscriber = subscriber
        self._commands = Redis(connection_pool=commands.connection_pool)
        # As they come: turning each entry into a dict costs as much as parsing it.
        for name in ("XRANGE", "XREVRANGE"):
            self._commands.set_response_callback(name, _as_it_is)
        self._snapshot = self._commands.register_script(SNAPSHOT)
        self._rooms: dict[str, _Room] = {}
        self._line: deque[_Room] = deque()  # rooms that need a page
        self._left: dict[str, None] = {}  # users whose room went
        self._wake = asyncio.Event()
        self._dirty: deque[_Room] = deque()
        self._waiting: deque[Listener] = deque()  # listeners that are to be written to apart from their room
        self._write = asyncio.Event()
        self._kept: dict[_Room, None] = {}
        self._kept_bytes = 0
        self._subscribed: set[str] = set()
        self._confirmed: dict[str, asyncio.Future[None]] = {}
        self._answered = 0.0  # when Redis last answered
        self.connected = False

    def join(self, user_id: str, last_event_id: str | None) -> Listener:
        """Return a listener that gets all events after `last_event_id`, or from now on when that is None."""
        loop = asyncio.get_running_loop()
        room = self._rooms.get(user_id)
        if room is None:
            room = self._rooms[user_id] = _Room(user_id)
        listener = Listener(self, room, last_event_id, loop.time())
        room.starting[listener] = None
        window = room.window
        if window is not None and last_event_id is not None:
            # It may know of an event that is on its way to us.
            room.stale |= position(last_event_id) > position(window.last)
        if len(room.starting) == 1:
            self._place(room)
        else:
            self._queue(room)  # whose turn places all
        if listener.cursor is None:
            loop.call_later(self._patience(), self._check, listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """Forget a listener at once."""
        listener.close()
        room = listener.room
        room.listeners.discard(listener)
        room.starting.pop(listener, None)
        if listener in room.lagging:
            self.caught_up(listener)
        if not room.listeners and not room.starting and not room.gone:
            room.gone = True
            self._release(room)
            del self._rooms[room.user_id]
            self._left[room.user_id] = None
            self._wake.set()

    async def run(self) -> None:
        """Serve until cancelled, through any number of lost Redis connections."""
        writing = asyncio.create_task(self._write_all())
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
                    self._confirmed.clear()
                    self._line.clear()
                    for room in self._rooms.values():
                        room.queued = False
                        room.stale = True
                        self._queue(room)
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

    def _check(self, listener: Listener) -> None:
        """Refuse a listener that waits for a Redis which does not answer."""
        if listener.cursor is not None or listener.end is not None or listener.room.gone:
            return
        loop = asyncio.get_running_loop()
        waited, patience = loop.time() - max(listener.since, self._answered), self._patience()
        if waited >= patience:
            listener.close(End.UNAVAILABLE)
        else:
            loop.call_later(patience - waited, self._check, listener)

    def _patience(self) -> float:
        return PATIENCE if self.connected else OUTAGE_PATIENCE

    # What is published

    async def _read(self, pubsub: "PubSub") -> None:
        asked = False
        taken = 0
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
            taken += 1
            if taken % MESSAGES_AT_ONCE == 0:
                # Messages that have already come are handed out without a pause.
                await asyncio.sleep(0)

    def _receive(self, name: str, payload: str) -> None:
        room = self._rooms.get(name.removeprefix("user:").removesuffix(":events"))
        if room is None:
            return
        try:
            event = from_message(payload)
        except ValueError as error:
            logger.warning("Ignored a message on %s that is no event: %s", name, error)
            # The stream may have what the message can't give.
            room.stale = True
            self._queue(room)
            return
        if room.window is None or room.lost:
            room.heard = event.id
        elif room.window.append(event):
            self._mark(room)
        elif position(event.id) > position(room.window.last):
            room.stale = True
            self._queue(room)

    # What is written to sockets

    def _mark(self, room: _Room) -> None:
        room.again = True
        if not room.dirty:
            room.dirty = True
            self._dirty.append(room)
            self._write.set()

    async def _write_all(self) -> None:
        """Bring the listeners of one room after the other to the window's end, some at a time."""
        written = 0
        while True:
            await self._write.wait()
            self._write.clear()
            while self._waiting or self._dirty:
                # In turn, so that neither keeps the other waiting for long.
                for _ in range(min(len(self._waiting), WRITES_AT_ONCE)):
                    self._flush(self._waiting.popleft())
                await asyncio.sleep(0)
                if self._dirty:
                    room = self._dirty.popleft()
                    room.again = False
                    assert room.window is not None
                    reached = room.window.end
                    for listener in tuple(room.listeners):
                        self._flush(listener)
                        written += 1
                        if written % WRITES_AT_ONCE == 0:
                            await asyncio.sleep(0)
                    self._written(room, reached)

    def _flush(self, listener: Listener) -> None:
        try:
            listener.flush()
        except Exception:
            logger.exception("A socket of %s could not be written to", listener.room.user_id)
            listener.close(End.UNAVAILABLE)

    def _written(self, room: _Room, reached: int) -> None:
        window = room.window
        assert window is not None
        for listener in tuple(room.lagging):
            if listener.cursor is not None and window.end - listener.cursor > QUEUE_LIMIT:
                room.lagging.discard(listener)
                room.listeners.discard(listener)
                listener.close(End.TOO_SLOW)
        room.dirty = room.again
        if room.again:
            self._dirty.append(room)
        # A room that is never done with is trimmed, too.
        self._trim(room, reached)

    def write_soon(self, listener: Listener) -> None:
        """Send more to a listener when others have had their turn."""
        self._waiting.append(listener)
        self._write.set()

    def caught_up(self, listener: Listener) -> None:
        """Note that a listener has been sent all, or is gone."""
        room = listener.room
        if listener in room.lagging:
            room.lagging.discard(listener)
            if not room.lagging:
                self.tidy(room)

    def tidy(self, room: _Room) -> None:
        """Let go of frames that nobody needs."""
        if room.window is not None and not room.dirty:
            self._trim(room, room.window.end)

    def _trim(self, room: _Room, reached: int) -> None:
        """Let go of frames before `reached` that no lagging listener needs."""
        window = room.window
        if window is None or room.starting:
            return
        needed = window.begin if room.kept else reached
        for listener in room.lagging:
            if listener.cursor is not None:
                needed = min(needed, listener.cursor)
        if needed > window.begin:
            room.sought = None
        window.trim(needed)

    def _keep(self, room: _Room) -> None:
        """Keep the window for a while: a user's sockets tend to come back together."""
        window = room.window
        size = (window.size if window else 0) + (len(room.resync[1]) if room.resync else 0)
        if room.kept or not size:
            return
        room.kept = size
        self._kept[room] = None
        self._kept_bytes += room.kept
        asyncio.get_running_loop().call_later(KEEP, self._release, room)
        while self._kept_bytes > KEEP_BYTES:
            self._release(next(iter(self._kept)))

    def _release(self, room: _Room) -> None:
        room.resync = None
        if room in self._kept:
            del self._kept[room]
            self._kept_bytes -= room.kept
            room.kept = 0
            self.tidy(room)

    # What is read from the streams

    def _queue(self, room: _Room) -> None:
        if not room.queued and not room.gone:
            room.queued = True
            self._line.append(room)
            self._wake.set()

    async def _manage(self, pubsub: "PubSub") -> None:
        task = asyncio.current_task()
        # A cancellation was seen to be lost in the client library (redis-py 8.1.0, Python 3.11).
        while task and not task.cancelling():
            await self._wake.wait()
            self._wake.clear()
            while self._left or self._line:
                left, self._left = self._left, {}
                gone = [user for user in left if user in self._subscribed and user not in self._rooms]
                for i in range(0, len(gone), CHANNELS_AT_ONCE):
                    await pubsub.unsubscribe(*map(channel, gone[i : i + CHANNELS_AT_ONCE]))
                self._subscribed.difference_update(gone)
                await self._subscribe(pubsub)
                await self._turn()
                await asyncio.sleep(0)

    async def _subscribe(self, pubsub: "PubSub") -> None:
        """Subscribe to the next rooms of the line, before anything of them is read."""
        rooms = [room for room in islice(self._line, CHANNELS_AT_ONCE) if not room.gone]
        users = [room.user_id for room in rooms if room.user_id not in self._subscribed]
        if users and not self._subscribed.issuperset(room.user_id for room in rooms[:ROOMS_AT_ONCE]):
            # The last confirmation follows all others.
            confirmed = asyncio.get_running_loop().create_future()
            self._confirmed[channel(users[-1])] = confirmed
            await pubsub.subscribe(*map(channel, users))
            await confirmed
            self._subscribed.update(users)

    async def _turn(self) -> None:
        """Read one page for each of the rooms that come next."""
        asked: list[tuple[_Room, _Question]] = []
        entries = 0
        async with self._commands.pipeline(transaction=False) as pipe:
            while self._line and len(asked) < ROOMS_AT_ONCE and entries < ENTRIES_AT_ONCE:
                room = self._line[0]
                if not room.gone and room.user_id not in self._subscribed:
                    break  # it came meanwhile
                self._line.popleft()
                room.queued = False
                if room.gone:
                    continue
                question = self._question(room)
                if question is None:
                    self._place(room)
                    continue
                asked.append((room, question))
                entries += question.limit
                if question.look is _Look.SNAPSHOT:
                    keys = [stream(room.user_id), listing_key(room.user_id)]
                    await self._snapshot(keys=keys, client=pipe)
                else:
                    pipe.execute_command(*question.command)
            if not asked:
                return
            answers = await pipe.execute(raise_on_error=False)
        self._answered = asyncio.get_running_loop().time()
        for (room, question), answer in zip(asked, answers, strict=True):
            if room.gone:
                continue
            if isinstance(answer, RedisConnectionError):
                raise answer
            try:
                if isinstance(answer, Exception):
                    raise answer
                self._take(room, question, answer)
                self._place(room)
            except Exception as error:
                known = isinstance(error, (ResponseError, ValueError))
                logger.error("The events of %s can't be read: %s", room.user_id, error, exc_info=not known)
                for listener in (*room.starting, *room.listeners):
                    listener.close(End.UNAVAILABLE)

    def _question(self, room: _Room) -> _Question | None:
        """Return what a room needs next."""
        key, window = stream(room.user_id), room.window
        if room.lost or room.hopeless:
            return _Question(_Look.SNAPSHOT, limit=PAGE)
        if window is None:
            room.stale = False
            wanted = [listener.wanted for listener in room.starting if listener.wanted is not None]
            if not wanted:
                return _Question(_Look.FIRST, ("XREVRANGE", key, "+", "-", "COUNT", "1"))
            oldest = min(wanted, key=position)
            command = ("XREVRANGE", key, "+", oldest, "COUNT", str(PAGE))
            return _Question(_Look.FIRST, command, oldest, PAGE)
        if room.stale:
            # What makes it stale from now on may be later than the answer.
            room.stale = False
            command = ("XRANGE", key, window.last, "+", "COUNT", str(NEWS))
            return _Question(_Look.FORWARD, command, window.last, NEWS)
        if room.back is not None:
            count = max(1, min(PAGE, HISTORY - len(window)))  # it may have grown since
            command = ("XREVRANGE", key, window.floor, f"({room.back}", "COUNT", str(count))
            return _Question(_Look.BACK, command, room.back, count)
        return None

    def _take(self, room: _Room, question: _Question, answer: Any) -> None:
        """Let the window grow by what the stream answered."""
        window = room.window
        if question.look is _Look.SNAPSHOT:
            last = str(answer[0])
            room.resync = last, frame(f'{{"type":"resync","snapshot":{snapshot_text(answer)}}}')
            room.hopeless = False
            if room.lost:
                room.reset(last)
                room.stale |= room.heard is not None and position(room.heard) > position(last)
                for listener in room.listeners:
                    listener.restart(room.resync[1])
                self._mark(room)
            elif window is not None and window.after(last) is None:
                room.stale = True
            return
        events = [from_entry(*entry) for entry in answer]
        if question.look is _Look.FORWARD:
            assert window is not None
            # The event that was asked for proves that nothing is missing after it.
            begin = events[0] if events else None
            known = question.wanted in ((begin.id, begin.previous) if begin else (NO_EVENT,))
            newest = position(window.last)
            room.lost = not known or not all(
                window.append(event) for event in events if position(event.id) > newest
            )
            room.stale |= len(events) == question.limit
            self._mark(room)
            return
        if window is None:
            if events:
                window = Window(events[0].id)
            elif question.wanted in (None, NO_EVENT):
                window = Window(NO_EVENT)
            else:
                room.lost = True
                return
            room.window = window
            room.stale |= room.heard is not None and position(room.heard) > position(window.last)
            if question.wanted is None:
                return
        if not window.prepend(events):
            room.sought = (-1, -1)
        elif len(events) < question.limit:
            assert question.wanted is not None
            room.sought = position(question.wanted)

    def _place(self, room: _Room) -> None:
        """Give each starting listener its cursor, where the window has its event; else queue the room."""
        window, room.back, room.hopeless = room.window, None, False
        if window is not None and not room.lost and room.starting:
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
                    pass  # it may come
                elif (
                    at < position(window.floor)
                    and (room.sought is None or at < room.sought)
                    and len(window) < HISTORY
                    and now - listener.since < REPLAY_TIME
                ):
                    room.back = wanted if room.back is None else min(room.back, wanted, key=position)
                elif room.resync is None or (cursor := window.after(room.resync[0])) is None:
                    # After a snapshot the window may have to grow first.
                    room.hopeless = room.resync is None or not room.stale
                else:
                    listener.restart(room.resync[1])
                    self._start(listener, cursor)
        if window is not None and not room.lost and not room.starting:
            self._keep(room)
        if window is None or room.lost or room.stale or room.hopeless or room.back is not None:
            self._queue(room)

    def _start(self, listener: Listener, cursor: int) -> None:
        room = listener.room
        listener.cursor = cursor
        del room.starting[listener]
        room.listeners.add(listener)
        # Until it is written to nothing that it needs may be trimmed.
        room.lagging.add(listener)
        self.write_soon(listener)
        listener.settle()
