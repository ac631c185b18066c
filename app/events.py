"""Events: appended to a capped stream per user and published in the same atomic step.

Every event names its predecessor, so a reader of the stream or of the published messages can detect a gap
after any event it knows. No clock and no counter has to survive the loss of Redis.
"""

import json
import re
import struct
from typing import Any, NamedTuple

from redis.asyncio import Redis

HISTORY = 1_000  # events kept for each user; a client that missed more gets a snapshot, which is smaller
RETENTION = 30 * 86_400  # seconds that state and history are kept after the last change
NO_EVENT = "0-0"  # the position before a stream's first event
TEXT = 0x81  # first byte of a frame: a complete text message

# KEYS[1] is the user's stream. Redis assigns the id, which is inserted before the event's own fields.
APPEND = f"""
local function append(channel, body)
  local tail = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
  local previous = tail[1] and tail[1][1] or '{NO_EVENT}'
  local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', {HISTORY}, '*', 'previous', previous, 'event', body)
  redis.call('EXPIRE', KEYS[1], {RETENTION})
  local head = '{{"id":"' .. id .. '","previous_id":"' .. previous .. '",'
  redis.call('PUBLISH', channel, head .. string.sub(body, 2))
  return id
end
"""
PUBLISH = APPEND + "return append(ARGV[1], ARGV[2])"


class Event(NamedTuple):
    """One event. `frame` is the WebSocket frame that all sockets are sent."""

    id: str
    previous: str
    frame: bytes


def channel(user_id: str) -> str:
    """Return the Redis channel on which a user's events are published."""
    return f"user:{user_id}:events"


def stream(user_id: str) -> str:
    """Return the Redis key of a user's stream."""
    return f"user:{user_id}:stream"


def is_id(text: str) -> bool:
    """Return whether `text` has the form of an event id: two unsigned 64-bit numbers joined by a hyphen."""
    return re.fullmatch(r"[0-9]{1,20}-[0-9]{1,20}", text) is not None and max(position(text)) < 2**64


def position(event_id: str) -> tuple[int, int]:
    """Return an event id as a pair of numbers, which sort in the order of the stream."""
    first, second = event_id.split("-")
    return int(first), int(second)


def newer(event_id: str, other: str) -> bool:
    """Return whether `event_id` comes after `other` in a stream."""
    return position(event_id) > position(other)


def dump(value: Any) -> str:
    """Return compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def frame(text: str) -> bytes:
    """Return `text` as an unmasked WebSocket text frame (RFC 6455, section 5.2)."""
    payload = text.encode()
    length = len(payload)
    if length < 126:
        head = bytes((TEXT, length))
    elif length < 1 << 16:
        head = struct.pack("!BBH", TEXT, 126, length)
    else:
        head = struct.pack("!BBQ", TEXT, 127, length)
    return head + payload


def _payload_at(data: bytes) -> int:
    return {126: 4, 127: 10}.get(data[1], 2)


def id_of(data: bytes) -> str:
    """Return the event id in a frame made by `from_message` or `from_entry`, where it is the first field."""
    begin = _payload_at(data) + len('{"id":"')
    return data[begin : data.index(b'"', begin)].decode()


def type_of(data: bytes) -> str:
    """Return the message type in a frame made by `frame`."""
    return str(json.loads(data[_payload_at(data) :])["type"])


def from_message(payload: str) -> Event:
    """Return the event in a published message. Raises ValueError for anything else."""
    try:
        fields = json.loads(payload)
        event_id = fields.pop("id")
        event = Event(event_id, fields.pop("previous_id"), frame(dump({"id": event_id, **fields})))
        position(event.id)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("no id and previous_id") from error
    return event


def from_entry(entry_id: str, fields: list[str]) -> Event:
    """Return the event in a stream entry, whose fields are alternating names and values.

    Raises ValueError for anything else.
    """
    try:
        # In the order in which APPEND writes them.
        name, previous, _, body = fields
    except ValueError:
        name = ""
    if name != "previous":
        raise ValueError(f"entry {entry_id} does not have the fields of an event")
    return Event(entry_id, previous, frame(f'{{"id":"{entry_id}",{body[1:]}'))


async def publish(redis: "Redis", user_id: str, event: dict[str, Any]) -> str:
    """Append an event to the user's stream, publish it, and return its id.

    `event` needs a `type` and a `time`. Raises ValueError without them, and RedisError when Redis fails; the
    event may then have been published or not.
    """
    if not {"type", "time"} <= event.keys():
        raise ValueError(f"an event needs the fields type and time; this one has {sorted(event)}")
    script = redis.register_script(PUBLISH)
    event_id: str = await script(keys=[stream(user_id)], args=[channel(user_id), dump(event)])
    return event_id
