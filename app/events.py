"""Events: kept in a capped stream per user and published in the same atomic step.

Every event names the one before it. So whoever holds an id can tell, from a stream or from a published
message, whether what follows is whole; no clock and no counter has to survive a lost Redis.
"""

import json
import re
from typing import Any, NamedTuple

from redis.asyncio import Redis

HISTORY = 1_000  # events kept for each user; whoever missed more gets a snapshot, which is smaller by then
RETENTION = 30 * 86_400  # seconds after its last change that state and history are kept
NO_EVENT = "0-0"  # the position before a stream's first event

# KEYS[1] is the user's stream. Redis numbers the entry, so its id is put in front of the event's own fields.
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
    """One event as clients get it. `text` is serialised once and shared by all sockets."""

    id: str
    previous: str
    type: str
    text: str


def channel(user_id: str) -> str:
    """Return the channel that a user's events are published on."""
    return f"user:{user_id}:events"


def stream(user_id: str) -> str:
    """Return the key of a user's stream."""
    return f"user:{user_id}:stream"


def is_id(text: str) -> bool:
    """Tell whether `text` can be an event's id: two unsigned 64-bit numbers with a hyphen between."""
    return re.fullmatch(r"[0-9]{1,20}-[0-9]{1,20}", text) is not None and max(position(text)) < 2**64


def position(event_id: str) -> tuple[int, int]:
    """Return an id as a pair that orders as its stream does."""
    first, second = event_id.split("-")
    return int(first), int(second)


def dump(value: Any) -> str:
    """Return compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def from_message(payload: str) -> Event:
    """Return the event in a published message; raise ValueError when it isn't one of ours."""
    try:
        fields = json.loads(payload)
        event = Event(fields["id"], fields.pop("previous_id"), fields["type"], dump(fields))
        position(event.id)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("no id, previous_id and type") from error
    return event


def range_after(user_id: str, last: str) -> tuple[str, ...]:
    """Return the Redis command whose answer `whole_after` reads.

    The range begins at `last` itself: its presence is the proof that nothing is missing after it.
    """
    return ("XRANGE", stream(user_id), last, "+", "COUNT", str(HISTORY + 2))


def whole_after(last: str, entries: list[tuple[str, dict[str, str]]]) -> list[Event] | None:
    """Return the events after `last`, or None when they are not all there or more than HISTORY."""
    events = [
        Event(
            id=entry_id,
            previous=fields["previous"],
            type=json.loads(fields["event"])["type"],
            text=f'{{"id":"{entry_id}",{fields["event"][1:]}',
        )
        for entry_id, fields in entries
    ]
    if events and events[0].id == last:
        del events[0]
    elif (events[0].previous if events else NO_EVENT) != last:
        return None
    return events if len(events) <= HISTORY else None


async def publish(redis: "Redis", user_id: str, event: dict[str, Any]) -> str:
    """Append one event of yours to the user's stream, publish it, and return its id.

    `event` needs a `type` and a `time`; Redis gives the id. Raises RedisError when Redis can't be asked; then
    it may or may not have happened.
    """
    if not {"type", "time"} <= event.keys():
        raise ValueError(f"an event needs a type and a time, this one has {sorted(event)}")
    script = redis.register_script(PUBLISH)
    event_id: str = await script(keys=[stream(user_id)], args=[channel(user_id), dump(event)])
    return event_id
