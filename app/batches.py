"""Batches of CVs and their state in Redis. Each change and its events are one atomic step."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import redis
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker

from app.events import APPEND, NO_EVENT, RETENTION, channel, dump, stream

LISTED = 50  # batches in a snapshot, the newest
QUEUE = "cvs"
ACTOR = "process_cv"
PROGRESS = {"queued": 0, "extracting": 20, "analysing": 60, "done": 100, "failed": 100}  # percent

Status = Literal["queued", "extracting", "analysing", "done", "failed"]

# A batch is a hash: batch_id, user_id, created_at, total, done, failed, cvs (ids in order), cv:<id> (JSON).
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
# KEYS: stream, batch, list of batches. ARGV: channel, time, id, user, then id and JSON of each CV.
# Idempotent: the client library repeats it when the reply was lost.
_CREATE = (
    _EVENTS
    + f"""
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local ids = {{}}
for i = 5, #ARGV, 2 do
  ids[#ids + 1] = ARGV[i]
  redis.call('HSET', KEYS[2], 'cv:' .. ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[2], 'batch_id', ARGV[3], 'user_id', ARGV[4], 'created_at', ARGV[2],
  'total', #ids, 'done', 0, 'failed', 0, 'cvs', table.concat(ids, ' '))
redis.call('EXPIRE', KEYS[2], {RETENTION})
redis.call('LPUSH', KEYS[3], ARGV[3])
redis.call('LTRIM', KEYS[3], 0, {LISTED - 1})
redis.call('EXPIRE', KEYS[3], {RETENTION})
batch_event(ARGV[1], ARGV[2], KEYS[2])
for i = 6, #ARGV, 2 do cv_event(ARGV[1], ARGV[2], ARGV[i]) end
return 1
"""
)
# KEYS: stream, batch. ARGV: channel, time, CV's id, its new JSON, progress and outcome (done, failed or '').
# Only forward: a job repeated after its worker was killed changes nothing that was already reported.
_ADVANCE = (
    _EVENTS
    + f"""
local old = redis.call('HGET', KEYS[2], 'cv:' .. ARGV[3])
if not old or cjson.decode(old).progress >= tonumber(ARGV[5]) then return 0 end
redis.call('HSET', KEYS[2], 'cv:' .. ARGV[3], ARGV[4])
redis.call('EXPIRE', KEYS[2], {RETENTION})
cv_event(ARGV[1], ARGV[2], ARGV[4])
if ARGV[6] ~= '' then
  redis.call('HINCRBY', KEYS[2], ARGV[6], 1)
  batch_event(ARGV[1], ARGV[2], KEYS[2])
end
return 1
"""
)
# KEYS: stream, list of batches. Returns the newest event's id and each batch as a flat list, atomically.
SNAPSHOT = f"""
local tail = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local batches = {{}}
for _, id in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do
  local fields = redis.call('HGETALL', 'batch:' .. id)
  if next(fields) then batches[#batches + 1] = fields end
end
return {{tail[1] and tail[1][1] or '{NO_EVENT}', batches}}
"""


@dataclass(frozen=True, slots=True)
class NewCV:
    """A received CV: its generated id, its original file name, its size in bytes and its kind."""

    cv_id: str
    filename: str
    size: int
    kind: str


class _Outbox(RedisBroker):
    """Enqueues into a pipeline, so that a batch and its jobs are stored together or not at all."""

    def _max_unpack_size(self) -> int:
        # The default reads it from Redis, which a pipeline can't do. Enqueueing unpacks nothing.
        return 1


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
    last_event_id, batches = reply
    texts = []
    for flat in batches:
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        cvs = ",".join(fields[f"cv:{cv_id}"] for cv_id in fields["cvs"].split())
        texts.append(f'{dump(_summary(fields))[:-1]},"cvs":[{cvs}]}}')
    return f'{{"last_event_id":{dump(last_event_id)},"batches":[{",".join(texts)}]}}'


def create(client: "redis.Redis", batch_id: str, user_id: str, new: Iterable[NewCV]) -> dict[str, Any]:
    """Store a batch with its jobs, publish its events, and return it.

    Raises RedisError; then nothing is stored, unless only the reply was lost.
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
    with client.pipeline(transaction=True) as pipe:
        pipe.register_script(_CREATE)(
            keys=[stream(user_id), batch_key(batch_id), listing_key(user_id)],
            args=[
                channel(user_id),
                time,
                batch_id,
                user_id,
                *(part for item in cvs.items() for part in item),
            ],
        )
        # Maintenance (looking for dead workers' jobs) is left to the workers.
        outbox = _Outbox(client=pipe, middleware=[], maintenance_chance=0)  # type: ignore[no-untyped-call]
        for cv in new:
            outbox.enqueue(Message(QUEUE, ACTOR, (user_id, batch_id, cv.cv_id, cv.kind), {}, {}))
        pipe.execute()
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

    def advance(self, cv: dict[str, Any], status: Status, **fields: Any) -> None:
        """Set `status` and `fields` on `cv` and publish it. Raises RedisError."""
        cv |= {"status": status, "progress": PROGRESS[status], **fields}
        self._script(
            keys=[stream(self._user_id), batch_key(self._batch_id)],
            args=[
                channel(self._user_id),
                now(),
                self._cv_id,
                dump(cv),
                PROGRESS[status],
                status if PROGRESS[status] == 100 else "",
            ],
        )
