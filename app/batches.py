"""Batches of CVs and their state in Redis. Each change and its events are one atomic step."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

import redis
from dramatiq import Message

from app.events import APPEND, NO_EVENT, RETENTION, channel, dump, stream
from app.storage import ALLOW_OOM, IS_FULL, QUEUE, QUEUE_KEY
from app.turns import ACTOR, TURNS_KEY, waiting_key

LISTED = 50  # batches kept for each user, and in a snapshot at most
SNAPSHOT_BYTES = 512 << 10  # of batches in a snapshot, which has one batch at least
PROGRESS = {"queued": 0, "extracting": 20, "analysing": 60, "done": 100, "failed": 100}  # percent

Status = Literal["queued", "extracting", "analysing", "done", "failed"]

# A batch is a hash: batch_id, user_id, created_at, total, done, failed, cvs (ids in order), cv:<id> (JSON),
# cpu (milliseconds of processor time). It lives as long as its place in the user's list.
_EVENTS = (
    APPEND
    + """
local function cv_event(channel, time, cv)
  append(channel, '{"type":"cv_progress","time":"' .. time .. '",' .. string.sub(cv, 2))
end
local function batch_event(channel, time, key)
  local b = redis.call('HMGET', key, 'batch_id', 'created_at', 'total', 'done', 'failed')
  local total, ended = tonumber(b[3]), b[4] + b[5]
  local status, percent = ended == total and 'done' or 'processing', math.floor(100 * ended / total)
  append(channel, string.format(
    '{"type":"batch_progress","time":"%s","batch_id":"%s","created_at":"%s","status":"%s",'
      .. '"total":%d,"done":%d,"failed":%d,"progress":%d}',
    time, b[1], b[2], status, total, b[4], b[5], percent))
end
"""
)
# KEYS: stream, batch, list of batches, the user's waiting CVs. ARGV: channel, time, id, user, most unfinished
# CVs, most kept CVs, then of each CV: id, JSON, kind, its message's id in the queue, the message.
# Idempotent: the client library repeats it when the reply was lost.
_CREATE = (
    _EVENTS
    + IS_FULL
    + f"""
if redis.call('EXISTS', KEYS[2]) == 1 then return {{'stored'}} end
if is_full() then return {{'full'}} end
local new, kept, unfinished, waiting, count, finished = (#ARGV - 6) / 5, 0, 0, 0, 0, {{}}
local ids = redis.call('LRANGE', KEYS[3], 0, -1)
for i = #ids, 1, -1 do
  local b = redis.call('HMGET', 'batch:' .. ids[i], 'total', 'done', 'failed')
  if not b[1] then
    redis.call('LREM', KEYS[3], 1, ids[i])
  else
    count, kept = count + 1, kept + b[1]
    local open = b[1] - b[2] - b[3]
    if open > 0 then
      unfinished, waiting = unfinished + open, waiting + 1
    else
      finished[#finished + 1] = {{ids[i], b[1]}}
    end
  end
end
local gone = 0  -- finished batches, the oldest first, that make room
while (kept + new > tonumber(ARGV[6]) or count >= {LISTED}) and gone < #finished do
  gone = gone + 1
  kept, count = kept - finished[gone][2], count - 1
end
if unfinished + new > tonumber(ARGV[5]) or kept + new > tonumber(ARGV[6]) or count >= {LISTED} then
  return {{'unfinished', unfinished, waiting}}
end
for i = 1, gone do
  redis.call('DEL', 'batch:' .. finished[i][1])
  redis.call('LREM', KEYS[3], 1, finished[i][1])
end
if not redis.call('LRANGE', KEYS[4], 0, 0)[1] then redis.call('RPUSH', '{TURNS_KEY}', ARGV[4]) end
local stored = {{}}
for i = 7, #ARGV, 5 do
  stored[#stored + 1] = ARGV[i]
  redis.call('HSET', KEYS[2], 'cv:' .. ARGV[i], ARGV[i + 1])
  redis.call('RPUSH', KEYS[4], ARGV[3] .. ' ' .. ARGV[i] .. ' ' .. ARGV[i + 2])
  -- As dramatiq enqueues.
  redis.call('HSET', '{QUEUE_KEY}.msgs', ARGV[i + 3], ARGV[i + 4])
  redis.call('RPUSH', '{QUEUE_KEY}', ARGV[i + 3])
end
redis.call('HSET', KEYS[2], 'batch_id', ARGV[3], 'user_id', ARGV[4], 'created_at', ARGV[2],
  'total', new, 'done', 0, 'failed', 0, 'cpu', 0, 'cvs', table.concat(stored, ' '))
redis.call('EXPIRE', KEYS[2], {RETENTION})
redis.call('LPUSH', KEYS[3], ARGV[3])
redis.call('EXPIRE', KEYS[3], {RETENTION})
batch_event(ARGV[1], ARGV[2], KEYS[2])
for i = 8, #ARGV, 5 do cv_event(ARGV[1], ARGV[2], ARGV[i]) end
return {{'stored'}}
"""
)
# KEYS: stream, batch, list of batches. ARGV: channel, time, CV's id, its new JSON, progress, outcome (done,
# failed or ''), milliseconds of processor time that it took.
# Only forward: a job repeated after its worker was killed changes nothing that was already reported.
_ADVANCE = (
    ALLOW_OOM
    + _EVENTS
    + f"""
local old = redis.call('HGET', KEYS[2], 'cv:' .. ARGV[3])
if not old or cjson.decode(old).progress >= tonumber(ARGV[5]) then return 0 end
redis.call('HSET', KEYS[2], 'cv:' .. ARGV[3], ARGV[4])
if redis.call('HEXISTS', KEYS[2], 'cpu') == 1 then redis.call('HINCRBY', KEYS[2], 'cpu', ARGV[7]) end
redis.call('EXPIRE', KEYS[2], {RETENTION})
redis.call('EXPIRE', KEYS[3], {RETENTION})
cv_event(ARGV[1], ARGV[2], ARGV[4])
if ARGV[6] ~= '' then
  redis.call('HINCRBY', KEYS[2], ARGV[6], 1)
  batch_event(ARGV[1], ARGV[2], KEYS[2])
end
return 1
"""
)
# KEYS: stream, list of batches. ARGV, optional: id of the batch before which to begin, or ''; most batches.
# Returns, atomically, the newest event's id, each batch as a flat list, and the last one's id if older ones
# are left, else ''.
SNAPSHOT = f"""
local tail = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local before, limit = ARGV[1] or '', tonumber(ARGV[2] or {LISTED})
local batches, size, last, older = {{}}, 0, '', ''
for _, id in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do
  if before ~= '' then
    if id == before then before = '' end
  else
    local fields = redis.call('HGETALL', 'batch:' .. id)
    if next(fields) then
      for _, value in ipairs(fields) do size = size + #value end
      if #batches == limit or (#batches > 0 and size > {SNAPSHOT_BYTES}) then
        older = last
        break
      end
      batches[#batches + 1], last = fields, id
    end
  end
end
return {{tail[1] and tail[1][1] or '{NO_EVENT}', batches, older}}
"""


class TooManyCVs(Exception):
    """A user's bound is reached; the text is for the user."""


class StorageFull(Exception):
    """Redis is too full to accept more."""


@dataclass(frozen=True, slots=True)
class NewCV:
    """A received CV: its generated id, its original file name, its size in bytes and its kind."""

    cv_id: str
    filename: str
    size: int
    kind: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many CVs of a user may be unfinished, and how many are kept: the oldest finished make room."""

    unfinished: int
    kept: int


def now() -> str:
    """Return the current time in ISO 8601, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def batch_key(batch_id: str) -> str:
    """Return the key of a batch."""
    return f"batch:{batch_id}"


def listing_key(user_id: str) -> str:
    """Return the key of the list of a user's newest batches."""
    return f"user:{user_id}:batches"


def _summary(fields: dict[str, str]) -> dict[str, Any]:
    total, done, failed = (int(fields[name]) for name in ("total", "done", "failed"))
    return {
        "batch_id": fields["batch_id"],
        "created_at": fields["created_at"],
        "status": "done" if done + failed == total else "processing",
        "total": total,
        "done": done,
        "failed": failed,
        "progress": 100 * (done + failed) // total,
    }


def batch_from(fields: dict[str, str]) -> dict[str, Any]:
    """Return a batch as sent to clients, from its Redis hash."""
    cvs = [json.loads(fields[f"cv:{cv_id}"]) for cv_id in fields["cvs"].split()]
    return _summary(fields) | {"cvs": cvs}


def snapshot_text(reply: list[Any]) -> str:
    """Return a snapshot as sent to clients, in JSON, from the SNAPSHOT script's reply.

    CVs are stored as JSON and copied unparsed: parsing thousands of them would block the event loop.
    """
    last_event_id, batches, older = reply
    texts = []
    for flat in batches:
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        cvs = ",".join(fields[f"cv:{cv_id}"] for cv_id in fields["cvs"].split())
        texts.append(f'{dump(_summary(fields))[:-1]},"cvs":[{cvs}]}}')
    rest = f',"next":{dump(older)}' if older else ""
    return f'{{"last_event_id":{dump(last_event_id)},"batches":[{",".join(texts)}]{rest}}}'


def create(
    client: "redis.Redis", batch_id: str, user_id: str, new: Sequence[NewCV], bounds: Bounds
) -> dict[str, Any]:
    """Store a batch with its jobs, publish its events, and return it.

    Raises TooManyCVs, StorageFull and RedisError; then nothing is stored, unless only the reply was lost.
    """
    time = now()
    cvs = {
        cv.cv_id: dump(
            {
                "cv_id": cv.cv_id,
                "batch_id": batch_id,
                "filename": cv.filename,
                "size": cv.size,
                "status": "queued",
                "progress": PROGRESS["queued"],
                "result": None,
                "error": None,
            }
        )
        for cv in new
    }
    jobs: list[str | bytes] = []
    for cv in new:
        message_id = uuid4().hex
        arguments = (user_id, batch_id, cv.cv_id, cv.kind)
        message: Message[None] = Message(QUEUE, ACTOR, arguments, {}, {"redis_message_id": message_id})
        jobs += (cv.cv_id, cvs[cv.cv_id], cv.kind, message_id, message.encode())
    outcome, *numbers = client.register_script(_CREATE)(
        keys=[stream(user_id), batch_key(batch_id), listing_key(user_id), waiting_key(user_id)],
        args=[channel(user_id), time, batch_id, user_id, bounds.unfinished, bounds.kept, *jobs],
    )
    if outcome == "full":
        raise StorageFull
    if outcome == "unfinished":
        unfinished, uploads = numbers
        raise TooManyCVs(
            f"{unfinished} of your CVs, in {uploads} uploads, are not processed yet, and at most "
            f"{bounds.unfinished} CVs in {LISTED} uploads may wait; upload more once some are done."
        )
    return batch_from(
        {
            "batch_id": batch_id,
            "created_at": time,
            "total": str(len(cvs)),
            "done": "0",
            "failed": "0",
            "cvs": " ".join(cvs),
            **{f"cv:{cv_id}": text for cv_id, text in cvs.items()},
        }
    )


class Progress:
    """Advances one CV and publishes each step. Repeating an earlier step does nothing."""

    def __init__(self, client: "redis.Redis", user_id: str, batch_id: str, cv_id: str) -> None:
        self._client = client
        self._user_id = user_id
        self._batch_id = batch_id
        self._cv_id = cv_id
        self._script = client.register_script(_ADVANCE)

    def cv(self) -> dict[str, Any] | None:
        """Return the CV as sent to clients, or None when its batch no longer exists. Raises RedisError."""
        text = self._client.execute_command("HGET", batch_key(self._batch_id), f"cv:{self._cv_id}")
        return None if text is None else dict(json.loads(text))

    def spent(self) -> float:
        """Return the seconds of processor time that the batch has taken. Raises RedisError."""
        return int(self._client.execute_command("HGET", batch_key(self._batch_id), "cpu") or 0) / 1000

    def advance(self, cv: dict[str, Any], status: Status, seconds: float = 0, **fields: Any) -> None:
        """Set `status` and `fields` on `cv`, which took `seconds` of processor time, and publish it.

        Raises RedisError.
        """
        cv |= {"status": status, "progress": PROGRESS[status], **fields}
        self._script(
            keys=[stream(self._user_id), batch_key(self._batch_id), listing_key(self._user_id)],
            args=[
                channel(self._user_id),
                now(),
                self._cv_id,
                dump(cv),
                PROGRESS[status],
                status if PROGRESS[status] == 100 else "",
                round(seconds * 1000),
            ],
        )
